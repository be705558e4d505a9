from __future__ import annotations

from django.urls import path
from django.views.generic import TemplateView
from drf_spectacular.views import SpectacularAPIView

from webapp.accounts.access import public
from webapp.api.openai import views as openai
from webapp.api.views import comparisons, exports, judges, labels, projects, runs, tokens

V1 = "api/v1"
urlpatterns = [
    path(f"{V1}/schema/", public(SpectacularAPIView.as_view(permission_classes=[])), name="api_schema"),
    path("api/docs/", public(TemplateView.as_view(template_name="api/docs.html")), name="api_docs"),
    path(f"{V1}/projects/", projects.Projects.as_view(), name="api_projects"),
    path(f"{V1}/projects/<slug:slug>/", projects.ProjectDetail.as_view(), name="api_project"),
    path(f"{V1}/projects/<slug:slug>/prompts/", projects.Prompts.as_view(), name="api_prompts"),
    path(f"{V1}/projects/<slug:slug>/demonstrations/", projects.Demonstrations.as_view(), name="api_demonstrations"),
    path(f"{V1}/projects/<slug:slug>/rankings/", projects.Rankings.as_view(), name="api_rankings"),
    path(f"{V1}/projects/<slug:slug>/judgments/", projects.Judgments.as_view(), name="api_judgments"),
    path(f"{V1}/projects/<slug:slug>/exports/<str:kind>/", projects.Export.as_view(), name="api_export"),
    path(f"{V1}/projects/<slug:slug>/tasks/next/", labels.NextLease.as_view(), name="api_next"),
    path(f"{V1}/leases/<int:pk>/renew/", labels.Renew.as_view(), name="api_renew"),
    path(f"{V1}/leases/<int:pk>/release/", labels.Release.as_view(), name="api_release"),
    path(f"{V1}/leases/<int:pk>/skip/", labels.SkipLease.as_view(), name="api_skip"),
    path(f"{V1}/leases/<int:pk>/demonstration/", labels.SubmitDemonstration.as_view(), name="api_submit_demonstration"),
    path(f"{V1}/leases/<int:pk>/ranking/", labels.SubmitRanking.as_view(), name="api_submit_ranking"),
    path(f"{V1}/leases/<int:pk>/review/", labels.SubmitReview.as_view(), name="api_submit_review"),
    path(f"{V1}/projects/<slug:slug>/snapshots/", runs.Snapshots.as_view(), name="api_snapshots"),
    path(f"{V1}/projects/<slug:slug>/runs/", runs.Runs.as_view(), name="api_runs"),
    path(f"{V1}/runs/<int:pk>/", runs.RunDetail.as_view(), name="api_run"),
    path(f"{V1}/runs/<int:pk>/metrics/", runs.RunMetrics.as_view(), name="api_run_metrics"),
    path(f"{V1}/runs/<int:pk>/events/", runs.RunEvents.as_view(), name="api_run_events"),
    path(f"{V1}/runs/<int:pk>/outputs/<path:name>/", runs.RunOutput.as_view(), name="api_run_output"),
    path(f"{V1}/runs/<int:pk>/stop/", runs.StopRun.as_view(), name="api_run_stop"),
    path(f"{V1}/runs/<int:pk>/resume/", runs.ResumeRun.as_view(), name="api_run_resume"),
    path(f"{V1}/projects/<slug:slug>/model-uploads/", runs.ModelUploads.as_view(), name="api_model_uploads"),
    path(f"{V1}/model-uploads/<int:pk>/", runs.ModelUploadDetail.as_view(), name="api_model_upload"),
    path(f"{V1}/projects/<slug:slug>/model-needs/", runs.ModelNeeds.as_view(), name="api_model_needs"),
    path(f"{V1}/projects/<slug:slug>/models/", runs.Models.as_view(), name="api_models"),
    path(f"{V1}/models/<int:pk>/", runs.ModelDetail.as_view(), name="api_model"),
    path(f"{V1}/models/<int:pk>/exports/", exports.ModelExports.as_view(), name="api_model_exports"),
    path(f"{V1}/model-exports/<int:pk>/", exports.ModelExportDetail.as_view(), name="api_model_export"),
    path(
        f"{V1}/model-exports/<int:pk>/archive/", exports.ModelExportArchive.as_view(), name="api_model_export_archive"
    ),
    path(
        f"{V1}/model-exports/<int:pk>/files/<path:name>/",
        exports.ModelExportFile.as_view(),
        name="api_model_export_file",
    ),
    path(f"{V1}/models/<int:pk>/deploy/", runs.DeployModel.as_view(), name="api_deploy"),
    path(f"{V1}/projects/<slug:slug>/deployments/", runs.Deployments.as_view(), name="api_deployments"),
    path(f"{V1}/deployments/<int:pk>/roll-back/", runs.RollBack.as_view(), name="api_roll_back"),
    path(f"{V1}/projects/<slug:slug>/judges/", judges.Judges.as_view(), name="api_judges"),
    path(f"{V1}/judges/<int:pk>/", judges.JudgeDetail.as_view(), name="api_judge"),
    path(f"{V1}/judges/<int:pk>/jobs/", judges.JudgeJobs.as_view(), name="api_judge_jobs"),
    path(f"{V1}/judge-jobs/<int:pk>/", judges.JudgeJobDetail.as_view(), name="api_judge_job"),
    path(f"{V1}/judge-jobs/<int:pk>/stop/", judges.StopJudgeJob.as_view(), name="api_judge_job_stop"),
    path(f"{V1}/judge-jobs/<int:pk>/continue/", judges.ContinueJudgeJob.as_view(), name="api_judge_job_continue"),
    path(f"{V1}/projects/<slug:slug>/comparisons/", comparisons.Comparisons.as_view(), name="api_comparisons"),
    path(f"{V1}/comparisons/<int:pk>/", comparisons.ComparisonDetail.as_view(), name="api_comparison"),
    path(f"{V1}/comparisons/<int:pk>/stop/", comparisons.StopComparison.as_view(), name="api_comparison_stop"),
    path(
        f"{V1}/comparisons/<int:pk>/continue/", comparisons.ContinueComparison.as_view(), name="api_comparison_continue"
    ),
    path(f"{V1}/tokens/", tokens.Tokens.as_view(), name="api_tokens"),
    path(f"{V1}/tokens/<str:digest>/", tokens.TokenDetail.as_view(), name="api_token"),
    path(f"{V1}/hub-token/", tokens.HubTokenDetail.as_view(), name="api_hub_token"),
    path("v1/chat/completions", openai.chat_completions, name="openai_chat_completions"),
    path("v1/completions", openai.completions, name="openai_completions"),
    path("v1/models", openai.models, name="openai_models"),
    path("v1/models/<str:name>", openai.model, name="openai_model"),
]

from __future__ import annotations

from django.urls import URLPattern, path

from webapp.chat import data_views, message_views, stream_views, views

urlpatterns: list[URLPattern] = [
    path("chat/", views.chat, name="chat"),
    path("chat/data/", data_views.own_data, name="chat_data"),
    path("chat/data/delete-account/", data_views.delete_account_view, name="chat_delete_account"),
    path("chat/data/<slug:slug>/export/", data_views.export_all, name="chat_export_all"),
    path("chat/data/<slug:slug>/delete/", data_views.delete_all_view, name="chat_delete_all"),
    path("chat/data/<slug:slug>/consent/", data_views.consent, name="chat_consent"),
    path("chat/data/<slug:slug>/deleted/", data_views.deleted, name="chat_deleted"),
    path("projects/<slug:slug>/withdrawn-data/", data_views.withdrawn_data, name="withdrawn_data"),
    path("chat/<uuid:conversation_id>/", views.conversation, name="chat_conversation"),
    path("chat/<uuid:conversation_id>/send/", views.send_message, name="chat_send"),
    path("chat/<uuid:conversation_id>/rename/", views.rename_conversation, name="chat_rename"),
    path("chat/<uuid:conversation_id>/delete/", views.delete_conversation, name="chat_delete"),
    path("chat/<uuid:conversation_id>/delete-for-good/", views.erase_conversation, name="chat_delete_for_good"),
    path("chat/<uuid:conversation_id>/earlier/", views.earlier, name="chat_earlier"),
    path("chat/<uuid:conversation_id>/news/", stream_views.news, name="chat_news"),
    path("chat/<uuid:conversation_id>/restore/", views.restore_conversation, name="chat_restore"),
    path("chat/<uuid:conversation_id>/export/", views.export, name="chat_export"),
    path("chat/messages/<int:message_id>/", message_views.message, name="chat_message"),
    path("chat/messages/<int:message_id>/events/", stream_views.reply_events, name="chat_events"),
    path("chat/messages/<int:message_id>/stop/", message_views.stop_reply, name="chat_stop"),
    path("chat/messages/<int:message_id>/edit/", message_views.edit_message, name="chat_edit"),
    path("chat/messages/<int:message_id>/regenerate/", message_views.regenerate_reply, name="chat_regenerate"),
    path("chat/messages/<int:message_id>/show/", message_views.show_branch, name="chat_show"),
    path("chat/messages/<int:message_id>/thumb/", message_views.thumb, name="chat_thumb"),
    path("chat/messages/<int:message_id>/feedback/", message_views.rate_reply, name="chat_feedback"),
    path("chat/messages/<int:message_id>/pick/", message_views.pick_reply, name="chat_pick"),
]

from django.apps import AppConfig


class JudgesConfig(AppConfig):
    name = "webapp.judges"
    label = "judges"

    def ready(self) -> None:
        from webapp.judges.as_rewards import servers_of_judges  # noqa: PLC0415 (models load after the apps)
        from webapp.runs.reward_fields import known_servers  # noqa: PLC0415

        known_servers.append(servers_of_judges)

//! Tables of silences, and of what Alertmanager lists.

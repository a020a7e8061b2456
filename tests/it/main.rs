//! The integration tests: one binary, one file per theme, all against real parts (see `tests/support`).

#[path = "../properties/mod.rs"]
mod properties;
#[path = "../support/mod.rs"]
mod support;

mod api;
mod broker_life;
mod browser_works;
mod browsers;
mod callers;
mod chaos;
mod cli;
mod configuration;
mod configuration_lost;
mod console_access;
mod console_campaigns;
mod console_dead_letters;
mod console_overview;
mod contract;
mod dashboards;
mod dead_letter_lists;
mod dead_letters;
mod dead_letters_cli;
mod dead_letters_kept;
mod demo;
mod deployments;
mod discards;
mod doctor;
mod egress;
mod erasure;
mod examples;
mod explain;
mod isolation;
mod journey;
mod malformed;
mod operations;
mod properties_hold;
mod publisher;
mod replay_control;
mod replay_faults;
mod replays;
mod retries;
mod running;
mod sealing;
mod shards;
mod signing;
mod stage;
mod support_works;
mod tidy;
mod tls;
mod verify;
mod webhooks;
mod worker_life;

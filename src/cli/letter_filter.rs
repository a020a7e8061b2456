//! The filter options of the dead-letter commands, and their translation to a filter and back.

use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::endpoint::Origin;
use waypost_core::ids::{DeliveryId, EventId, WebhookId};
use waypost_core::reason::DeadLetterReason;
use waypost_core::time_spec::TimeSpec;

use super::error::CliError;
use super::sanitize;

/// The filter names of the API, and their flags.
const FLAGS: [(&str, &str); 12] = [
    ("campaignId", "--campaign"),
    ("label", "--label"),
    ("webhookId", "--webhook"),
    ("phoneNumber", "--phone"),
    ("eventId", "--event"),
    ("deliveryId", "--delivery"),
    ("endpoint", "--endpoint"),
    ("reason", "--reason"),
    ("status", "--status"),
    ("since", "--since"),
    ("until", "--until"),
    ("state", "--state"),
];

const HELP_HEADING: &str = "Filters";

#[derive(Args, Clone, Default)]
pub(super) struct Filter {
    /// Only of this campaign
    #[arg(long, alias = "campaign-id", help_heading = HELP_HEADING, value_name = "ID", allow_hyphen_values = true)]
    campaign: Option<String>,
    /// Only of the section with this label
    #[arg(long, help_heading = HELP_HEADING, allow_hyphen_values = true)]
    label: Option<String>,
    /// Only of this webhook
    #[arg(long, alias = "webhook-id", help_heading = HELP_HEADING, value_name = "ID", allow_hyphen_values = true)]
    webhook: Option<String>,
    /// Only of this phone number, exactly as in the events
    #[arg(long, alias = "phone-number", help_heading = HELP_HEADING, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: Option<String>,
    /// Only of this event
    #[arg(long, alias = "event-id", help_heading = HELP_HEADING, value_name = "ID", allow_hyphen_values = true)]
    event: Option<String>,
    /// Only of this delivery: the value of the webhook-id header
    #[arg(long, alias = "delivery-id", help_heading = HELP_HEADING, value_name = "ID", allow_hyphen_values = true)]
    delivery: Option<String>,
    /// Only if the last attempt went to this endpoint: scheme, host and port, as in `https://example.com:443`
    #[arg(long, help_heading = HELP_HEADING, value_name = "URL", value_parser = Origin::parse)]
    endpoint: Option<Origin>,
    /// Only with this reason
    #[arg(long, help_heading = HELP_HEADING, value_parser = one_of(DeadLetterReason::ALL, DeadLetterReason::as_str))]
    reason: Option<DeadLetterReason>,
    /// Only if the last attempt was answered with this HTTP status
    #[arg(long, help_heading = HELP_HEADING, value_parser = clap::value_parser!(u16).range(100..=999))]
    status: Option<u16>,
    /// Only dead letters created at or after this time: RFC 3339, or how long ago (`2h`)
    #[arg(long, help_heading = HELP_HEADING, value_name = "TIME", value_parser = TimeSpec::parse)]
    since: Option<TimeSpec>,
    /// Only dead letters created before this time: RFC 3339, or how long ago (`30m`)
    #[arg(long, help_heading = HELP_HEADING, value_name = "TIME", value_parser = TimeSpec::parse)]
    until: Option<TimeSpec>,
    /// Only in this state
    #[arg(long, help_heading = HELP_HEADING, value_parser = one_of(LetterState::ALL, LetterState::as_str))]
    pub(super) state: Option<LetterState>,
}

/// Accepts the names of `values`.
fn one_of<T: Copy + Send + Sync + 'static, const COUNT: usize>(
    values: [T; COUNT],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(values.map(name)).try_map(move |text| {
        let value = values.into_iter().find(|value| name(*value) == text);
        value.ok_or("unknown")
    })
}

impl Filter {
    /// Resolves relative times against `now`, so that all requests of a command use the same times.
    pub(super) fn to_filter(&self, now: DateTime<Utc>) -> Result<LetterFilter, CliError> {
        let since = self.since.map(|since| since.at(now));
        let until = self.until.map(|until| until.at(now));
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(CliError::Usage("--since must be before --until".to_owned()));
        }
        Ok(LetterFilter {
            campaign_id: self.campaign.clone(),
            label: self.label.clone(),
            webhook_id: self.webhook.clone().map(WebhookId::new),
            phone_number: self.phone.clone(),
            event_id: self.event.clone().map(EventId::new),
            delivery_id: self.delivery.clone().map(DeliveryId::new),
            endpoint: self.endpoint.clone(),
            reason: self.reason,
            status: self.status,
            since,
            until,
            state: self.state,
        })
    }
}

/// A filter as flags, limited to `names`: `--campaign 13010 --status 500`.
pub(in crate::cli) fn flags(filter: &LetterFilter, names: &[&str]) -> String {
    let fields = filter.fields().into_iter().filter(|(field, _)| names.contains(field));
    let flag = |(field, value): (&str, String)| {
        let (_, flag) = FLAGS.iter().find(|(name, _)| *name == field)?;
        Some(format!("{flag} {}", sanitize::shell_word(&value)))
    };
    fields.filter_map(flag).collect::<Vec<_>>().join(" ")
}

pub(super) const ALL_NAMES: [&str; 12] = LetterFilter::FIELDS;

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::{json, to_value};
    use waypost_core::timestamp;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        filter: Filter,
    }

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T03:00:00Z").unwrap()
    }

    fn parse(arguments: &[&str]) -> Result<LetterFilter, String> {
        let cli = TestCli::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        cli.filter.to_filter(now()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn every_filter_has_a_flag() {
        assert!(FLAGS.iter().map(|(name, _)| *name).eq(ALL_NAMES));
    }

    #[test]
    fn flags_and_filters_convert_both_ways() {
        assert_eq!(parse(&[]), Ok(LetterFilter::default()));
        let arguments = [
            "--campaign",
            "13010",
            "--label",
            "-1",
            "--webhook",
            "wh_a",
            "--phone",
            "+5511999990000",
            "--event",
            "e-1",
            "--delivery",
            "msg_1",
            "--endpoint",
            "https://example.com",
            "--reason",
            "forbidden_address",
            "--status",
            "500",
            "--since",
            "2h",
            "--until",
            "2026-11-22T03:00:00+01:00",
            "--state",
            "replayed",
        ];
        let filter = parse(&arguments).unwrap();
        let document = json!({ "campaignId": "13010", "label": "-1", "webhookId": "wh_a", "phoneNumber": "+5511999990000",
            "eventId": "e-1", "deliveryId": "msg_1", "endpoint": "https://example.com:443", "reason": "forbidden_address",
            "status": 500, "since": "2026-11-22T01:00:00.000Z", "until": "2026-11-22T02:00:00.000Z", "state": "replayed" });
        assert_eq!(to_value(&filter).unwrap(), document);
        assert_eq!(
            flags(&filter, &ALL_NAMES),
            "--campaign 13010 --label -1 --webhook wh_a --phone +5511999990000 --event e-1 --delivery msg_1 \
             --endpoint https://example.com:443 --reason forbidden_address --status 500 --since 2026-11-22T01:00:00.000Z --until 2026-11-22T02:00:00.000Z --state replayed"
        );
        assert_eq!(flags(&filter, &["campaignId", "state"]), "--campaign 13010 --state replayed");
        let label = LetterFilter { label: Some("Welcome Message".to_owned()), ..LetterFilter::default() };
        assert_eq!(flags(&label, &ALL_NAMES), "--label 'Welcome Message'");
    }

    #[test]
    fn invalid_values_are_refused() {
        for arguments in [
            ["--reason", "tired"],
            ["--state", "done"],
            ["--status", "5xx"],
            ["--status", "99"],
            ["--endpoint", "example.com"],
            ["--endpoint", "https://example.com/hook"],
        ] {
            assert!(parse(&arguments).is_err(), "{arguments:?}");
        }
        assert!(parse(&["--since", "1h", "--until", "2h"]).unwrap_err().contains("--since must be before --until"));
        assert!(parse(&["--since", "2h", "--until", "1h"]).is_ok());
    }
}

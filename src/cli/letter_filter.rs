//! The filter options of the dead-letter commands, and their translation to the filter of the API and back.

use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};
use waypost_core::dead_letter::LetterState;
use waypost_core::dead_letter::filter::LetterFilter;
use waypost_core::endpoint::Origin;
use waypost_core::reason::DeadLetterReason;
use waypost_core::time_spec::TimeSpec;
use waypost_core::timestamp;

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
    #[arg(long, help_heading = HELP_HEADING, value_parser = PossibleValuesParser::new(DeadLetterReason::ALL.map(DeadLetterReason::as_str)))]
    reason: Option<String>,
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
    #[arg(long, help_heading = HELP_HEADING, value_parser = PossibleValuesParser::new(LetterState::ALL.map(LetterState::as_str)))]
    pub(super) state: Option<String>,
}

impl Filter {
    /// Resolves relative times against `now`, so that all requests of a command use the same times.
    pub(super) fn to_query(&self, now: DateTime<Utc>) -> Result<FilterQuery, CliError> {
        let since = self.since.map(|since| since.at(now));
        let until = self.until.map(|until| until.at(now));
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(CliError::Usage("--since must be before --until".to_owned()));
        }
        let values = [
            self.campaign.clone(),
            self.label.clone(),
            self.webhook.clone(),
            self.phone.clone(),
            self.event.clone(),
            self.delivery.clone(),
            self.endpoint.as_ref().map(ToString::to_string),
            self.reason.clone(),
            self.status.map(|status| status.to_string()),
            since.as_ref().map(timestamp::text),
            until.as_ref().map(timestamp::text),
            self.state.clone(),
        ];
        let params = FLAGS.iter().zip(values).filter_map(|((name, _), value)| Some((*name, value?)));
        Ok(FilterQuery(params.collect()))
    }
}

/// A filter with the names of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FilterQuery(Vec<(&'static str, String)>);

impl FilterQuery {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds or replaces a condition.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.retain(|(existing, _)| *existing != name);
        self.0.push((name, value.to_owned()));
        self
    }

    /// Query parameters of a URL.
    pub(super) fn params(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// The `filter` of a request body.
    pub(super) fn to_json(&self) -> Value {
        let value = |name: &str, text: &str| match text.parse::<u16>() {
            Ok(status) if name == "status" => status.into(),
            _ => text.into(),
        };
        self.0.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect::<Map<_, _>>().into()
    }
}

/// A filter of the API as flags, limited to `names`: `--campaign 13010 --status 500`.
pub(super) fn flags(filter: &Value, names: &[&str]) -> String {
    let flag = |(name, flag): &(&str, &str)| {
        let value = match &filter[name] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        names.contains(name).then(|| format!("{flag} {}", sanitize::shell_word(&value)))
    };
    FLAGS.iter().filter_map(flag).collect::<Vec<_>>().join(" ")
}

pub(super) const ALL_NAMES: [&str; 12] = LetterFilter::FIELDS;

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct TestCli {
        #[command(flatten)]
        filter: Filter,
    }

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T03:00:00Z").unwrap()
    }

    fn parse(arguments: &[&str]) -> Result<FilterQuery, String> {
        let cli = TestCli::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        cli.filter.to_query(now()).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn every_filter_has_a_flag() {
        assert!(FLAGS.iter().map(|(name, _)| *name).eq(ALL_NAMES));
    }

    #[test]
    fn flags_and_filters_convert_both_ways() {
        assert!(parse(&[]).unwrap().is_empty());
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
        let query = parse(&arguments).unwrap();
        let document = json!({ "campaignId": "13010", "label": "-1", "webhookId": "wh_a", "phoneNumber": "+5511999990000",
            "eventId": "e-1", "deliveryId": "msg_1", "endpoint": "https://example.com:443", "reason": "forbidden_address",
            "status": 500, "since": "2026-11-22T01:00:00.000Z", "until": "2026-11-22T02:00:00.000Z", "state": "replayed" });
        assert_eq!(query.to_json(), document);
        assert_eq!(query.params()[8], ("status", "500"));
        assert_eq!(
            flags(&document, &ALL_NAMES),
            "--campaign 13010 --label -1 --webhook wh_a --phone +5511999990000 --event e-1 --delivery msg_1 \
             --endpoint https://example.com:443 --reason forbidden_address --status 500 --since 2026-11-22T01:00:00.000Z --until 2026-11-22T02:00:00.000Z --state replayed"
        );
        assert_eq!(flags(&document, &["campaignId", "state"]), "--campaign 13010 --state replayed");
        assert_eq!(flags(&json!({ "label": "Welcome Message" }), &ALL_NAMES), "--label 'Welcome Message'");
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

    #[test]
    fn a_condition_is_set_once() {
        let query =
            parse(&["--state", "replayed", "--label", "a"]).unwrap().with("state", "pending").with("until", "x");
        assert_eq!(query.params(), [("label", "a"), ("state", "pending"), ("until", "x")]);
    }
}

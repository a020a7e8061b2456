//! Which dead letters are meant: the flags all commands share, and the filter of the API they stand for.

use chrono::{DateTime, Utc};
use clap::Args;
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value};

use crate::cli::CliError;
use crate::cli::sanitize;
use crate::delivery::dead_letter::LetterState;
use crate::delivery::dead_letter::filter::LetterFilter;
use crate::delivery::endpoint::Origin;
use crate::delivery::reason::DeadLetterReason;
use crate::delivery::time_spec::TimeSpec;
use crate::delivery::timestamp;

/// The API's names of the filters, and the flags.
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

/// Where the help has them.
const FILTERS: &str = "Filters";

#[derive(Args, Clone, Default)]
pub(in crate::cli) struct Filter {
    /// Those of this campaign
    #[arg(long, alias = "campaign-id", help_heading = FILTERS, value_name = "ID", allow_hyphen_values = true)]
    campaign: Option<String>,
    /// Those of the section with this label
    #[arg(long, help_heading = FILTERS, allow_hyphen_values = true)]
    label: Option<String>,
    /// Those of this webhook
    #[arg(long, alias = "webhook-id", help_heading = FILTERS, value_name = "ID", allow_hyphen_values = true)]
    webhook: Option<String>,
    /// Those of the person with this phone number, exactly as events have it
    #[arg(long, alias = "phone-number", help_heading = FILTERS, value_name = "NUMBER", allow_hyphen_values = true)]
    phone: Option<String>,
    /// Those of this event
    #[arg(long, alias = "event-id", help_heading = FILTERS, value_name = "ID", allow_hyphen_values = true)]
    event: Option<String>,
    /// Those of this delivery, which is the webhook-id header of its requests
    #[arg(long, alias = "delivery-id", help_heading = FILTERS, value_name = "ID", allow_hyphen_values = true)]
    delivery: Option<String>,
    /// Those whose last attempt went to this endpoint: scheme, host and port, as in `https://example.com:443`
    #[arg(long, help_heading = FILTERS, value_name = "URL", value_parser = Origin::parse)]
    endpoint: Option<Origin>,
    /// Those given up for this reason
    #[arg(long, help_heading = FILTERS, value_parser = PossibleValuesParser::new(DeadLetterReason::ALL.map(DeadLetterReason::as_str)))]
    reason: Option<String>,
    /// Those whose last attempt was answered with this HTTP status
    #[arg(long, help_heading = FILTERS, value_parser = clap::value_parser!(u16).range(100..=999))]
    status: Option<u16>,
    /// Those dead since then: RFC 3339, or how long ago (`2h`)
    #[arg(long, help_heading = FILTERS, value_name = "TIME", value_parser = TimeSpec::parse)]
    since: Option<TimeSpec>,
    /// Those dead before then: RFC 3339, or how long ago (`30m`)
    #[arg(long, help_heading = FILTERS, value_name = "TIME", value_parser = TimeSpec::parse)]
    until: Option<TimeSpec>,
    /// Those in this state
    #[arg(long, help_heading = FILTERS, value_parser = PossibleValuesParser::new(LetterState::ALL.map(LetterState::as_str)))]
    pub(super) state: Option<String>,
}

impl Filter {
    /// What is asked for, with times that stay the same over all calls of a command.
    pub(super) fn conditions(&self, now: DateTime<Utc>) -> Result<FilterQuery, CliError> {
        let since = self.since.map(|since| since.at(now));
        let until = self.until.map(|until| until.at(now));
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(CliError::Usage("--since is not before --until: nothing can have died in between".to_owned()));
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
        let named = FLAGS.iter().zip(values).filter_map(|((name, _), value)| Some((*name, value?)));
        Ok(FilterQuery(named.collect()))
    }
}

/// A filter in the words of the API.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FilterQuery(Vec<(&'static str, String)>);

impl FilterQuery {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets a condition, also if there is one of that name.
    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.0.retain(|(given, _)| *given != name);
        self.0.push((name, value.to_owned()));
        self
    }

    /// As parameters of an address.
    pub(super) fn query(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// As a part of a body.
    pub(super) fn document(&self) -> Value {
        let value = |name: &str, text: &str| match text.parse::<u16>() {
            Ok(status) if name == "status" => status.into(),
            _ => text.into(),
        };
        self.0.iter().map(|(name, text)| ((*name).to_owned(), value(name, text))).collect::<Map<_, _>>().into()
    }
}

/// A filter of the API as the flags it came from: `--campaign 13010 --status 500`. Only those named in `which`.
pub(in crate::cli) fn flags(filter: &Value, which: &[&str]) -> String {
    let flag = |(name, flag): &(&str, &str)| {
        let value = match &filter[name] {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        which.contains(name).then(|| format!("{flag} {}", sanitize::shell_word(&value)))
    };
    FLAGS.iter().filter_map(flag).collect::<Vec<_>>().join(" ")
}

/// All names a filter of the API has.
pub(in crate::cli) const ALL: [&str; 12] = LetterFilter::FIELDS;

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        filter: Filter,
    }

    fn now() -> DateTime<Utc> {
        timestamp::parse("2026-11-22T03:00:00Z").unwrap()
    }

    fn read(arguments: &[&str]) -> Result<FilterQuery, String> {
        let line = Line::try_parse_from([&["waypost"], arguments].concat()).map_err(|error| error.to_string())?;
        line.filter.conditions(now()).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn every_filter_has_a_flag() {
        assert!(FLAGS.iter().map(|(name, _)| *name).eq(ALL));
    }

    #[test]
    fn flags_are_filters() {
        assert!(read(&[]).unwrap().is_empty());
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
        let conditions = read(&arguments).unwrap();
        let document = json!({ "campaignId": "13010", "label": "-1", "webhookId": "wh_a", "phoneNumber": "+5511999990000",
            "eventId": "e-1", "deliveryId": "msg_1", "endpoint": "https://example.com:443", "reason": "forbidden_address",
            "status": 500, "since": "2026-11-22T01:00:00.000Z", "until": "2026-11-22T02:00:00.000Z", "state": "replayed" });
        assert_eq!(conditions.document(), document);
        assert_eq!(conditions.query()[8], ("status", "500"));
        assert_eq!(
            flags(&document, &ALL),
            "--campaign 13010 --label -1 --webhook wh_a --phone +5511999990000 --event e-1 --delivery msg_1 \
             --endpoint https://example.com:443 --reason forbidden_address --status 500 --since 2026-11-22T01:00:00.000Z --until 2026-11-22T02:00:00.000Z --state replayed"
        );
        assert_eq!(flags(&document, &["campaignId", "state"]), "--campaign 13010 --state replayed");
        assert_eq!(flags(&json!({ "label": "Welcome Message" }), &ALL), "--label 'Welcome Message'");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for arguments in [
            ["--reason", "tired"],
            ["--state", "done"],
            ["--status", "5xx"],
            ["--status", "99"],
            ["--endpoint", "example.com"],
            ["--endpoint", "https://example.com/hook"],
        ] {
            assert!(read(&arguments).is_err(), "{arguments:?}");
        }
        assert!(read(&["--since", "1h", "--until", "2h"]).unwrap_err().contains("--since is not before"));
        assert!(read(&["--since", "2h", "--until", "1h"]).is_ok());
    }

    #[test]
    fn a_condition_is_set_once() {
        let conditions =
            read(&["--state", "replayed", "--label", "a"]).unwrap().with("state", "pending").with("until", "x");
        assert_eq!(conditions.query(), [("label", "a"), ("state", "pending"), ("until", "x")]);
    }
}

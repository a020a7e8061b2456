//! A broker object that exists with other arguments, parsed from RabbitMQ's error text.

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object} exists with another `{argument}`{}: the broker has {actual}, Waypost wants {expected}. RabbitMQ cannot \
     change it. Restore the previous setting if you changed one, use another broker.prefix, or delete the object \
     with its messages",
    setting_of(argument)
)]
pub struct Mismatch {
    /// Kind and name: `queue waypost.events`.
    pub object: String,
    /// For example `x-message-ttl`.
    pub argument: String,
    /// The value at the broker.
    pub actual: String,
    /// The value that Waypost declares.
    pub expected: String,
}

/// The setting that determines an argument, as part of the error text.
fn setting_of(argument: &str) -> &'static str {
    match argument {
        "x-max-age" => " (the setting deadLetters.retention)",
        _ => "",
    }
}

/// Parses RabbitMQ's error text: `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'waypost.delay.1' in
/// vhost '/': received the value '1000' of type 'signedint' but current is the value '7' of type 'signedint'`.
pub(super) fn parse_mismatch(message: &str) -> Option<Mismatch> {
    let (_, rest) = message.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once("' for ")?;
    let (object, rest) = rest.split_once(" in vhost ")?;
    let (_, rest) = rest.split_once(": received ")?;
    let (expected, actual) = rest.split_once(" but current is ")?;
    let value = |text: &str| match text.split_once("the value ") {
        Some((_, value)) => value.split(" of type ").next().unwrap_or(value).to_owned(),
        None => text.to_owned(),
    };
    Some(Mismatch {
        object: object.replace('\'', ""),
        argument: argument.to_owned(),
        actual: value(actual),
        expected: value(expected),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mismatch_names_object_argument_and_both_values() {
        for (message, object, argument, actual, expected) in [
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'waypost.delay.1' in vhost '/': \
                 received the value '1000' of type 'signedint' but current is the value '7' of type 'signedint'",
                "queue waypost.delay.1",
                "x-message-ttl",
                "'7'",
                "'1000'",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'waypost.events' in vhost '/': \
                 received the value 'quorum' of type 'longstr' but current is none",
                "queue waypost.events",
                "x-queue-type",
                "none",
                "'quorum'",
            ),
            (
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'waypost.events' in vhost '/': \
                 received 'topic' but current is 'direct'",
                "exchange waypost.events",
                "type",
                "'direct'",
                "'topic'",
            ),
        ] {
            let mismatch = Mismatch {
                object: object.to_owned(),
                argument: argument.to_owned(),
                actual: actual.to_owned(),
                expected: expected.to_owned(),
            };
            assert_eq!(parse_mismatch(message), Some(mismatch));
        }
        assert_eq!(parse_mismatch("NOT_FOUND - no queue"), None);
    }
}

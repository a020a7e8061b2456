//! An object of the broker that exists with other arguments: what RabbitMQ says of it.

/// An object exists with other arguments, which the broker can't change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object} exists with another `{argument}`{}: the broker has {found}, Waypost wants {wanted}. The broker can't change \
     it: put the setting back where it is one, use another broker.prefix, or delete the object and with it its messages",
    setting_behind(argument)
)]
pub struct Mismatch {
    /// Kind and name: `queue waypost.events`.
    pub object: String,
    /// The argument that differs.
    pub argument: String,
    /// Its value at the broker.
    pub found: String,
    /// The value we want.
    pub wanted: String,
}

/// The setting an argument comes from.
fn setting_behind(argument: &str) -> &'static str {
    match argument {
        "x-max-age" => " (the setting deadLetters.retention)",
        _ => "",
    }
}

/// Reads RabbitMQ's sentence: `PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue 'waypost.delay.1' in
/// vhost '/': received the value '1000' of type 'signedint' but current is the value '7' of type 'signedint'`.
pub(super) fn in_sentence(sentence: &str) -> Option<Mismatch> {
    let (_, rest) = sentence.split_once("inequivalent arg '")?;
    let (argument, rest) = rest.split_once("' for ")?;
    let (object, rest) = rest.split_once(" in vhost ")?;
    let (_, rest) = rest.split_once(": received ")?;
    let (wanted, found) = rest.split_once(" but current is ")?;
    let value = |text: &str| match text.split_once("the value ") {
        Some((_, value)) => value.split(" of type ").next().unwrap_or(value).to_owned(),
        None => text.to_owned(),
    };
    Some(Mismatch {
        object: object.replace('\'', ""),
        argument: argument.to_owned(),
        found: value(found),
        wanted: value(wanted),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mismatches_name_object_argument_and_both_values() {
        for (sentence, object, argument, found, wanted) in [
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
            let expected = Mismatch {
                object: object.to_owned(),
                argument: argument.to_owned(),
                found: found.to_owned(),
                wanted: wanted.to_owned(),
            };
            assert_eq!(in_sentence(sentence), Some(expected));
        }
        assert_eq!(in_sentence("NOT_FOUND - no queue"), None);
    }
}

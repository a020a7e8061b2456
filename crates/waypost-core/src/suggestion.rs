//! Suggestions for unknown names: "did you mean …?"

/// Maximum number of characters to insert, remove or replace.
const MAX_EDITS: usize = 2;

/// The candidate with the most similar name. `None` if no candidate is similar.
pub fn closest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let name = normalize(name);
    let edits = candidates.into_iter().map(|candidate| (strsim::levenshtein(&name, &normalize(candidate)), candidate));
    // Two edits turn any short name into any other.
    let similar = edits.filter(|(edits, candidate)| *edits <= MAX_EDITS && 2 * *edits < candidate.len());
    similar.min().map(|(_, candidate)| candidate)
}

/// Names are compared without case, `_`, `-`, `.` and spaces.
pub fn normalize(name: &str) -> String {
    name.chars().filter(|character| character.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        for (name, expected) in [
            ("header", Some("headers")),
            ("Headers", Some("headers")),
            ("haeders", Some("headers")),
            ("timeout", Some("timeoutMs")),
            ("timeout_ms", Some("timeoutMs")),
            ("uri", Some("url")),
            ("ID", Some("id")),
            ("it", None),
            ("if", None),
            ("method", None),
            ("", None),
        ] {
            assert_eq!(closest(name, ["id", "url", "headers", "timeoutMs", "to"]), expected, "{name}");
        }
        for (name, expected) in [
            ("broker.perfix", Some("broker.prefix")),
            ("brokr", Some("broker")),
            ("log.lvl", Some("log.level")),
            ("kafka.topic", None),
        ] {
            assert_eq!(closest(name, ["broker", "broker.prefix", "log", "log.level"]), expected, "{name}");
        }
    }

    #[test]
    fn of_equally_similar_names_the_first_by_alphabet_is_suggested() {
        assert_eq!(closest("nodes", ["nodee", "node"]), Some("node"));
    }
}

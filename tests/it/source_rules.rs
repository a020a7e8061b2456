//! Rules of the source that neither the compiler nor clippy checks. Each failure names the fix.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

/// A longer file should be split.
const MAX_LINES: usize = 500;

/// The folders with sources.
const FOLDERS: [&str; 3] = ["crates", "src", "tests"];

/// The limits in SECURITY.md, and the code that enforces them.
const LIMITS: [(&str, &str, &str); 15] = [
    ("event | 262144 bytes", "crates/waypost-core/src/event.rs", "MAX_EVENT_BYTES: usize = 256 * 1024;"),
    (
        "campaign document | 1048576 bytes",
        "crates/waypost-core/src/document.rs",
        "MAX_DOCUMENT_BYTES: usize = 1024 * 1024;",
    ),
    ("headers of a webhook | 50,", "crates/waypost-core/src/document/webhook.rs", "MAX_HEADERS: usize = 50;"),
    (
        "each value 8192 bytes",
        "crates/waypost-core/src/document/webhook.rs",
        "MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;",
    ),
    ("extra parameter | 32 |", "crates/waypost-core/src/document/webhook.rs", "MAX_BODY_DEPTH: usize = 32;"),
    ("API request | 1048576 bytes", "crates/waypost-http/src/extract.rs", "MAX_JSON_BYTES: usize = 1024 * 1024;"),
    (
        "form of the console | 8388608 bytes",
        "crates/waypost-http/src/console/auth_middleware.rs",
        "MAX_FORM_BYTES: usize = 8 * 1024 * 1024;",
    ),
    (
        "65536 bytes read, 1024 kept",
        "crates/waypost-engine/src/sender/response.rs",
        "RESPONSE_BYTES_READ: usize = 64 * 1024;",
    ),
    (
        "header lines of a response | 1048576 bytes",
        "crates/waypost-engine/src/sender/response.rs",
        "HEADER_BYTES_READ: usize = 1024 * 1024;",
    ),
    ("request | 30000 ms", "crates/waypost-core/src/document/webhook.rs", "MAX_TIMEOUT_MS: u64 = 30_000;"),
    ("kept with a delivery | 50 |", "crates/waypost-core/src/lib.rs", "ATTEMPTS_KEPT: usize = 50;"),
    ("page of a list | 1000 |", "crates/waypost-api/src/page.rs", "MAX_LIMIT: u16 = 1000;"),
    (
        "messages in flight | 33554432 |",
        "crates/waypost-engine/src/worker/memory_budget.rs",
        "MESSAGE_BYTES: usize = 32 * 1024 * 1024;",
    ),
    (
        "each webhook's counted once | 67108864 |",
        "crates/waypost-engine/src/worker/memory_budget.rs",
        "PARAMETER_BYTES: usize = 64 * 1024 * 1024;",
    ),
    (
        "receivers remembered | 10000 |",
        "crates/waypost-engine/src/worker/endpoint_registry.rs",
        "MAX_RECEIVERS: usize = 10_000;",
    ),
];

#[test]
fn the_code_has_the_limits_that_the_documentation_promises() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).expect("a file");
    let promised = read("SECURITY.md");
    for (row, file, declared) in LIMITS {
        assert!(promised.contains(row), "SECURITY.md does not contain `{row}`: change both, or LIMITS in this file");
        assert!(read(file).contains(declared), "{file} does not contain `{declared}`, but SECURITY.md says `{row}`");
    }
}

#[test]
fn every_file_is_compiled() {
    let sources = source_files();
    let mut violations = Violations::default();
    for source in &sources {
        let path = Path::new(&source.name);
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a file has a name");
        if ["lib", "main", "mod"].contains(&stem) {
            continue;
        }
        // A file is compiled if the module that it belongs to declares it.
        let folder = path.parent().expect("a file is in a folder");
        let parents =
            [folder.with_extension("rs"), folder.join("lib.rs"), folder.join("main.rs"), folder.join("mod.rs")];
        let declaration = format!("mod {stem};");
        let is_declared = sources.iter().any(|other| {
            parents.iter().any(|parent| Path::new(&other.name) == parent) && other.text.contains(&declaration)
        });
        if !is_declared {
            violations.add(source, 1, "no `mod` declares it");
        }
    }
    violations.check("the compiler does not see these files: declare each with `mod`, or delete it");
}

#[test]
fn every_file_begins_with_its_role() {
    let mut violations = Violations::default();
    for source in source_files() {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            violations.add(&source, 1, first);
        }
    }
    violations.check("begin the file with a `//!` line that states its role");
}

#[test]
fn no_file_is_long() {
    let mut violations = Violations::default();
    for source in source_files().iter().filter(|source| source.is_product()) {
        let lines = source.lines_without_tests();
        if lines > MAX_LINES {
            violations.add(source, lines, &format!("{lines} lines without tests"));
        }
    }
    violations.check(&format!("a file has at most {MAX_LINES} lines without tests: split it by role"));
}

#[test]
fn comments_have_no_todo() {
    // In two parts each, so that this file does not contain them.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut violations = Violations::default();
    for source in source_files() {
        for (number, line) in (1..).zip(source.text.lines()) {
            let words: BTreeSet<&str> = line.split(|c: char| !c.is_alphanumeric()).collect();
            if marks.iter().any(|mark| words.contains(mark)) {
                violations.add(&source, number, line.trim());
            }
        }
    }
    violations.check("do it now, or record it in an issue or in docs/decisions");
}

#[test]
fn no_test_is_ignored() {
    let ignored = concat!("#[ign", "ore");
    let mut violations = Violations::default();
    for source in source_files() {
        for (number, line) in (1..).zip(source.text.lines()).filter(|(_, line)| line.trim_start().starts_with(ignored))
        {
            violations.add(&source, number, line.trim());
        }
    }
    violations.check("a test that does not run proves nothing: fix it, or delete it");
}

#[test]
fn no_test_sleeps() {
    let sleeps = concat!("sle", "ep(");
    let mut violations = Violations::default();
    for source in source_files().iter().filter(|source| !source.name.starts_with("tests/support/")) {
        let tests_begin = if source.is_product() { source.tests_begin() } else { Some(0) };
        for (number, line) in (1..).zip(source.text.lines()) {
            let is_code = !line.trim_start().starts_with("//");
            if is_code && line.contains(sleeps) && tests_begin.is_some_and(|begin| number > begin) {
                violations.add(source, number, line.trim());
            }
        }
    }
    violations.check(
        "a test that sleeps is slow, and wrong on a busy machine: wait for a condition with `support::wait_until`, or pass \
         the time as an argument",
    );
}

#[test]
fn no_test_indexes_json_by_position() {
    let is_indexed = |line: &str| {
        line.match_indices("][").any(|(at, _)| {
            let (before, after) = (line[..at].chars().next_back(), line[at + 2..].chars().next());
            let is_name = |c: Option<char>| c == Some('"');
            let is_digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
            (is_name(before) && is_digit(after)) || (is_digit(before) && is_name(after))
        })
    };
    let mut violations = Violations::default();
    for source in source_files().iter().filter(|source| source.name.starts_with("tests/")) {
        for (number, line) in (1..).zip(source.text.lines()).filter(|(_, line)| is_indexed(line)) {
            violations.add(source, number, line.trim());
        }
    }
    violations.check(
        "a position says nothing about the element, and changes with the document: use a helper of `support::json`, such as \
         `webhook(&campaign, label, keyword)`, `only(&items)` or `find_by(&items, field, value)`",
    );
}

#[derive(Default)]
struct Violations(String);

impl Violations {
    fn add(&mut self, source: &Source, line: usize, what: &str) {
        // Writing to a string can't fail.
        let _ = write!(self.0, "\n  {}:{line}: {what}", source.name);
    }

    #[track_caller]
    fn check(self, what_to_do: &str) {
        assert!(self.0.is_empty(), "{what_to_do}:{}", self.0);
    }
}

struct Source {
    /// Relative to the root: `crates/waypost-broker/src/acks.rs`.
    name: String,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn source_files() -> Vec<Source> {
    let mut folders: Vec<_> = FOLDERS.iter().map(|folder| root().join(folder)).collect();
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the repository") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let name = path.strip_prefix(root()).expect("a file of the repository").display().to_string();
                sources.push(Source { name, text });
            }
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    for folder in FOLDERS {
        assert!(sources.iter().any(|source| source.name.starts_with(folder)), "{folder}/ has no source files");
    }
    sources
}

impl Source {
    /// Returns whether the file is product code. It may end with a module of tests.
    fn is_product(&self) -> bool {
        let is_tests = self.name.split('/').any(|part| part == "tests" || part == "tests.rs");
        !is_tests
    }

    /// The line of the `#[cfg(test)]` before a module of tests in the file.
    fn tests_begin(&self) -> Option<usize> {
        let lines: Vec<&str> = self.text.lines().collect();
        let begins = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
        lines.windows(2).position(begins).map(|index| index + 1)
    }

    fn lines_without_tests(&self) -> usize {
        let Some(begin) = self.tests_begin() else { return self.text.lines().count() };
        let end = self.text.lines().skip(begin).position(|line| line == "}").expect("an end of the tests");
        self.text.lines().count() - end - 2
    }
}

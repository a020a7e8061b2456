//! Rules of the source that no linter has. They read the text of `src/` and `tests/`, and say what to do where it breaks
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Component, Path, PathBuf};

/// Longer than this, a file tells more than one story.
const MOST_LINES: usize = 500;

/// The rooms that are functions over plain values, and which of Waypost's rooms each may know.
const PURE: [(&str, &[&str]); 2] = [("delivery", &["delivery"]), ("flow", &["flow", "delivery"])];

/// What these may not know, in code, tests included.
const NOT_IN_THE_CORE: [&str; 17] = [
    "lapin",
    "reqwest",
    "sled",
    "axum",
    "tokio",
    "Utc::now",
    "Local::now",
    "Instant::now",
    "SystemTime",
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
];

/// Rooms that each have a library to themselves, and who else may name it: only what passes it on from room to room.
const ROOMS: [Room; 4] = [
    Room {
        library: "lapin",
        owners: &["broker"],
        guests: &[
            "campaigns/reading.rs",
            "dead_letters.rs",
            "dead_letters/supervisor.rs",
            "view_sync.rs",
            "replays/runner.rs",
            "cli/demo.rs",
        ],
    },
    Room { library: "reqwest", owners: &["sender", "cli"], guests: &["broker/management.rs"] },
    Room { library: "sled", owners: &["store"], guests: &[] },
    Room { library: "axum", owners: &["http", "cli/demo"], guests: &[] },
];

struct Room {
    library: &'static str,
    /// `broker` is `src/broker.rs` and everything in `src/broker/`.
    owners: &'static [&'static str],
    guests: &'static [&'static str],
}

#[test]
fn the_core_does_no_io_and_reads_no_clock() {
    let mut broken = Broken::default();
    for source in sources("src").iter().filter(|source| PURE.iter().any(|(room, _)| source.is_in(room))) {
        for (line, path) in source.paths() {
            if NOT_IN_THE_CORE.iter().any(|forbidden| names(&path, forbidden)) {
                broken.at(source, line, &path);
            }
        }
    }
    broken.say(
        "src/delivery decides over plain values, and src/flow draws them. Take what is named here as an argument (`now: DateTime<Utc>`), and do \
         the I/O in the shell: src/worker, src/broker, src/sender, src/store",
    );
}

#[test]
fn the_core_knows_no_other_room() {
    let mut broken = Broken::default();
    let sources = sources("src");
    for (room, known) in PURE {
        for source in sources.iter().filter(|source| source.is_in(room)) {
            for (line, path) in source.paths() {
                let is_known = known.iter().any(|known| names(&path, &format!("crate::{known}")));
                if path.starts_with("crate::") && !is_known {
                    broken.at(source, line, &path);
                }
            }
        }
    }
    broken.say(
        "dependencies run one way, towards src/delivery: move what it needs into src/delivery, or hand it in as an \
         argument",
    );
}

#[test]
fn each_library_has_one_room() {
    let mut broken = Broken::default();
    for source in &sources("src") {
        for room in &ROOMS {
            let owned = room.owners.iter().any(|owner| source.is_in(owner));
            let welcome = owned || room.guests.iter().any(|guest| source.name == format!("src/{guest}"));
            let foreign = |path: &str| !welcome && names(path, room.library);
            for (line, path) in source.paths().into_iter().filter(|(_, path)| foreign(path)) {
                broken.at(source, line, &format!("{path} belongs to src/{}", room.owners.join(", src/")));
            }
        }
    }
    broken.say(
        "one library, one room: let the room that owns it offer what is needed here, in types of its own (an error \
         as text), and name those",
    );
}

/// What SECURITY.md says of limits, and where it stands in the code.
const LIMITS: [(&str, &str, &str); 15] = [
    ("event | 262144 bytes", "src/delivery/event.rs", "MAX_EVENT_BYTES: usize = 256 * 1024;"),
    ("campaign document | 1048576 bytes", "src/delivery/document.rs", "MAX_DOCUMENT_BYTES: usize = 1024 * 1024;"),
    ("headers of a webhook | 50,", "src/delivery/document/webhook.rs", "MAX_HEADERS: usize = 50;"),
    ("each value 8192 bytes", "src/delivery/document/webhook.rs", "MAX_HEADER_VALUE_BYTES: usize = 8 * 1024;"),
    ("extra parameter | 32 |", "src/delivery/document/webhook.rs", "MAX_BODY_DEPTH: usize = 32;"),
    ("API request | 1048576 bytes", "src/http/extract.rs", "MAX_JSON_BYTES: usize = 1024 * 1024;"),
    ("form of the console | 8388608 bytes", "src/http/console/auth_middleware.rs", "MAX_FORM_BYTES: usize = 8 * 1024 * 1024;"),
    ("65536 bytes read, 1024 kept", "src/sender.rs", "ANSWER_BYTES_READ: usize = 64 * 1024;"),
    ("header lines of an answer | 1048576 bytes", "src/sender/answer.rs", "HEADER_BYTES_READ: usize = 1024 * 1024;"),
    ("request | 30000 ms", "src/delivery/document/webhook.rs", "MAX_TIMEOUT_MS: u64 = 30_000;"),
    ("kept with a delivery | 50 |", "src/delivery.rs", "ATTEMPTS_KEPT: usize = 50;"),
    ("page of a list | 1000 |", "src/http/pagination.rs", "MAX_LIMIT: u16 = 1000;"),
    ("being dealt with | 33554432 |", "src/worker/memory_budget.rs", "MESSAGE_BYTES: usize = 32 * 1024 * 1024;"),
    (
        "each webhook's counted once | 67108864 |",
        "src/worker/memory_budget.rs",
        "PARAMETER_BYTES: usize = 64 * 1024 * 1024;",
    ),
    ("receivers remembered | 10000 |", "src/worker/endpoint_registry.rs", "MAX_RECEIVERS: usize = 10_000;"),
];

#[test]
fn the_limits_that_are_promised_are_those_of_the_code() {
    let read = |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect("a file");
    let promised = read("SECURITY.md");
    for (row, file, declared) in LIMITS {
        assert!(
            promised.contains(row),
            "SECURITY.md has no `{row}` any more: change both, or LIMITS in tests/it/tidy.rs"
        );
        assert!(read(file).contains(declared), "{file} has no `{declared}` any more, and SECURITY.md says `{row}`");
    }
}

#[test]
fn no_exception_outlives_its_reason() {
    let sources = sources("src");
    for room in &ROOMS {
        for guest in room.guests {
            let used = |source: &Source| source.paths().iter().any(|(_, path)| names(path, room.library));
            let needed = sources.iter().any(|source| source.name == format!("src/{guest}") && used(source));
            assert!(
                needed,
                "src/{guest} does not name {} any more: remove it from ROOMS in tests/it/tidy.rs",
                room.library
            );
        }
    }
}

#[test]
fn every_file_is_part_of_the_crate() {
    let sources: Vec<Source> = ["src", "tests"].into_iter().flat_map(sources).collect();
    let by_name: BTreeMap<&str, &Source> = sources.iter().map(|source| (source.name.as_str(), source)).collect();
    let mut reached = BTreeSet::new();
    let mut next: Vec<String> = ["src/lib.rs", "src/main.rs", "tests/it/main.rs"].map(str::to_owned).into();
    while let Some(name) = next.pop() {
        if let Some(source) = by_name.get(name.as_str())
            && reached.insert(name)
        {
            next.extend(source.modules());
        }
    }
    let mut broken = Broken::default();
    for orphan in sources.iter().filter(|source| !reached.contains(&source.name)) {
        broken.at(orphan, 1, "no `mod` leads here");
    }
    broken.say("the compiler does not see these files: declare each with `mod` where it belongs, or delete it");
}

#[test]
fn every_file_says_what_it_is() {
    let mut broken = Broken::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            broken.at(&source, 1, first);
        }
    }
    broken.say("begin the file with a `//!` line that says what it is for");
}

#[test]
fn no_file_is_long() {
    let mut broken = Broken::default();
    for source in sources("src").iter().filter(|source| !source.is_tests()) {
        let lines = source.lines_without_tests();
        if lines > MOST_LINES {
            broken.at(source, lines, &format!("{lines} lines without its tests"));
        }
    }
    broken.say(&format!(
        "a file has at most {MOST_LINES} lines, its tests not counted: move what has a name of its own into a file of \
         its own"
    ));
}

#[test]
fn nothing_is_left_to_be_done() {
    // In two parts each, so that this file does not name them itself.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut broken = Broken::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for (number, line) in (1..).zip(source.text.lines()) {
            let words: BTreeSet<&str> = line.split(|c: char| !c.is_alphanumeric()).collect();
            if marks.iter().any(|mark| words.contains(mark)) {
                broken.at(&source, number, line.trim());
            }
        }
    }
    broken.say("do it now, or write it down where it will be read: an issue, or docs/decisions");
}

#[test]
fn no_test_is_left_out() {
    let mut broken = Broken::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        for at in source.places(&["#", "[", "ignore"]) {
            broken.at(&source, at, "an ignored test");
        }
    }
    broken.say("a test that nobody runs proves nothing: mend it, or delete it");
}

#[test]
fn no_test_sleeps() {
    let mut broken = Broken::default();
    for source in ["src", "tests"].into_iter().flat_map(sources) {
        if source.name.starts_with("tests/support/") {
            continue;
        }
        let from = if source.name.starts_with("src/") && !source.is_tests() { source.tests_begin() } else { Some(0) };
        for at in source.places(&["sleep", "("]).into_iter().filter(|at| from.is_some_and(|from| *at > from)) {
            broken.at(&source, at, "sleeps");
        }
    }
    broken.say(
        "a test that sleeps is slow on a good day and wrong on a bad one: wait on a condition with \
         `support::until`, or hand the time in as an argument",
    );
}

/// Where a rule is broken.
#[derive(Default)]
struct Broken(String);

impl Broken {
    fn at(&mut self, source: &Source, line: usize, what: &str) {
        // Writing to a string can't fail.
        let _ = write!(self.0, "\n  {}:{line}: {what}", source.name);
    }

    #[track_caller]
    fn say(self, what_to_do: &str) {
        assert!(self.0.is_empty(), "{what_to_do}:{}", self.0);
    }
}

/// A source file.
struct Source {
    /// `src/broker/log.rs`
    name: String,
    text: String,
    tokens: Vec<Token>,
}

/// All source files of a folder of the crate.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join(folder)];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the crate") {
            let path = entry.expect("an entry of the folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let name = path.strip_prefix(root).expect("a file of the crate").display().to_string();
                sources.push(Source { tokens: tokens(&text), name, text });
            }
        }
    }
    sources.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!sources.is_empty(), "{folder}/ has no sources: the rules would hold of nothing");
    sources
}

impl Source {
    /// Whether it is `src/ROOM.rs`, or in `src/ROOM/`.
    fn is_in(&self, room: &str) -> bool {
        self.name == format!("src/{room}.rs") || self.name.starts_with(&format!("src/{room}/"))
    }

    /// Whether it is a module of tests in a file of its own.
    fn is_tests(&self) -> bool {
        self.name.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The line of the `#[cfg(test)]` before a module of tests within the file.
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

    /// The lines where these words and marks follow each other.
    fn places(&self, sequence: &[&str]) -> Vec<usize> {
        let found = self.tokens.windows(sequence.len()).filter(|window| {
            window.iter().zip(sequence).all(|(token, text)| token.kind != Kind::Text && token.text == *text)
        });
        found.map(|window| window[0].line).collect()
    }

    /// The files its `mod` declarations lead to, as far as there are any.
    fn modules(&self) -> Vec<String> {
        let file = Path::new(&self.name);
        let folder = file.parent().expect("a file is in a folder");
        let stem = file.file_stem().and_then(|stem| stem.to_str()).expect("a file has a name");
        let own = if ["lib", "main", "mod"].contains(&stem) { folder.to_owned() } else { folder.join(stem) };
        let mut modules = Vec::new();
        for (i, window) in self.tokens.windows(3).enumerate() {
            let [keyword, name, end] = window else { continue };
            if keyword.text != "mod" || name.kind != Kind::Word || end.text != ";" {
                continue;
            }
            match self.path_attribute(i) {
                Some(path) => modules.push(joined(folder, &path)),
                None => modules.extend(
                    [format!("{}.rs", name.text), format!("{}/mod.rs", name.text)].map(|path| joined(&own, &path)),
                ),
            }
        }
        modules
    }

    /// The path in a `#[path = "…"]` before the `mod` at this token.
    fn path_attribute(&self, at: usize) -> Option<String> {
        let before = &self.tokens[..at];
        let end =
            before.iter().rposition(|token| token.kind == Kind::Mark && [";", "}"].contains(&token.text.as_str()));
        let attributes = &before[end.map_or(0, |end| end + 1)..];
        let path = attributes.windows(3).find(|window| window[0].text == "path" && window[1].text == "=")?;
        Some(path[2].text.clone())
    }

    /// All paths named in its code, each whole: `use a::{b, c::d}` names `a::b` and `a::c::d`. Those that begin with
    /// `super` are told from the root: `crate::…`.
    fn paths(&self) -> Vec<(usize, String)> {
        let mut module: Vec<String> = vec!["crate".to_owned()];
        let file = Path::new(&self.name).with_extension("");
        module.extend(file.iter().skip(1).map(|part| part.to_string_lossy().into_owned()));
        let mut reader = Paths { tokens: &self.tokens, at: 0, found: Vec::new() };
        // Modules within the file, by the depth of braces at which they were opened.
        let (mut depth, mut opened): (usize, Vec<usize>) = (0, Vec::new());
        let mut paths = Vec::new();
        while let Some(token) = reader.tokens.get(reader.at) {
            let next = |ahead: usize| reader.tokens.get(reader.at + ahead).map(|token| token.text.as_str());
            if token.text == "mod" && token.kind == Kind::Word && next(2) == Some("{") {
                module.push(reader.tokens[reader.at + 1].text.clone());
                opened.push(depth);
                depth += 1;
                reader.at += 3;
                continue;
            }
            match (token.kind, token.text.as_str()) {
                (Kind::Mark, "{") => depth += 1,
                (Kind::Mark, "}") => {
                    depth = depth.saturating_sub(1);
                    if opened.last() == Some(&depth) {
                        opened.pop();
                        module.pop();
                    }
                }
                (Kind::Word, _) => {
                    reader.path("");
                    paths.extend(reader.found.drain(..).map(|(line, path)| (line, from_root(&path, &module))));
                    continue;
                }
                _ => {}
            }
            reader.at += 1;
        }
        paths
    }
}

/// `super::x` in `crate::a::b` is `crate::a::x`.
fn from_root(path: &str, module: &[String]) -> String {
    let mut rest = path;
    let mut up = 0;
    while let Some(above) = rest.strip_prefix("super") {
        if !above.is_empty() && !above.starts_with("::") {
            break;
        }
        up += 1;
        rest = above.trim_start_matches("::");
    }
    if up == 0 {
        return path.to_owned();
    }
    let mut whole = module[..module.len().saturating_sub(up).max(1)].join("::");
    if !rest.is_empty() {
        whole = format!("{whole}::{rest}");
    }
    whole
}

/// Reads paths off tokens.
struct Paths<'a> {
    tokens: &'a [Token],
    at: usize,
    found: Vec<(usize, String)>,
}

impl Paths<'_> {
    /// Reads the path that begins here, below `parent`: a word, and what follows it after `::`.
    fn path(&mut self, parent: &str) {
        let Token { text, line, .. } = &self.tokens[self.at];
        let path = if parent.is_empty() { text.clone() } else { format!("{parent}::{text}") };
        self.at += 1;
        if !self.marks("::") {
            self.found.push((*line, path));
            return;
        }
        self.at += 1;
        match self.tokens.get(self.at) {
            Some(token) if token.kind == Kind::Word => self.path(&path),
            Some(token) if token.text == "{" => self.group(&path),
            // `::*`, `::<T>`.
            other => {
                let glob = other.is_some_and(|token| token.text == "*");
                self.found.push((*line, if glob { format!("{path}::*") } else { path }));
            }
        }
    }

    /// Reads `{a, b::c}`.
    fn group(&mut self, parent: &str) {
        self.at += 1;
        while self.at < self.tokens.len() && !self.marks("}") {
            if self.tokens[self.at].kind == Kind::Word {
                self.path(parent);
            } else if self.marks("{") {
                self.group(parent);
            } else {
                self.at += 1;
            }
        }
        self.at += 1;
    }

    fn marks(&self, mark: &str) -> bool {
        self.tokens.get(self.at).is_some_and(|token| token.kind == Kind::Mark && token.text == mark)
    }
}

/// Whether a path has these segments in it, one after the other: `a::std::fs::read` names `std::fs`.
fn names(path: &str, segments: &str) -> bool {
    format!("::{path}::").contains(&format!("::{segments}::"))
}

/// `a/b` and `../c` are `a/c`.
fn joined(folder: &Path, path: &str) -> String {
    let mut whole = PathBuf::new();
    for component in folder.join(path).components() {
        match component {
            Component::ParentDir => {
                whole.pop();
            }
            other => whole.push(other),
        }
    }
    whole.display().to_string()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// A string, a character, a lifetime: no name that counts.
    Text,
    /// `::`, or one character.
    Mark,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    kind: Kind,
    text: String,
    line: usize,
}

/// Rust as far as the rules need it: words, marks and texts, without comments.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let (kind, length) = token(rest, first);
        let (text, after) = rest.split_at(length);
        if let Some(kind) = kind {
            let text = if kind == Kind::Text { text.trim_matches('"') } else { text };
            tokens.push(Token { kind, text: text.to_owned(), line });
        }
        line += rest[..length].matches('\n').count();
        rest = after;
    }
    tokens
}

/// What stands at the beginning, and its length; no kind for what is left out.
fn token(rest: &str, first: char) -> (Option<Kind>, usize) {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let until = |end: Option<usize>| end.unwrap_or(rest.len());
    if rest.starts_with("//") {
        return (None, until(rest.find('\n')));
    }
    if rest.starts_with("/*") {
        return (None, block_comment(rest));
    }
    if let Some(length) = raw_string(rest) {
        return (Some(Kind::Text), length);
    }
    let quote = rest.trim_start_matches(['b', 'c']);
    if quote.starts_with('"') && rest.len() - quote.len() <= 1 {
        return (Some(Kind::Text), rest.len() - quote.len() + quoted(quote, '"'));
    }
    if first == '\'' {
        let mut after = rest[1..].chars();
        let (second, third) = (after.next(), after.next());
        // A lifetime is not closed: `'a>` and `'a'` differ in the third character.
        let is_character = second == Some('\\') || third == Some('\'');
        return (Some(Kind::Text), if is_character { quoted(rest, '\'') } else { 1 });
    }
    if is_word(first) {
        return (Some(Kind::Word), until(rest.find(|c| !is_word(c))));
    }
    if first.is_whitespace() {
        return (None, first.len_utf8());
    }
    (Some(Kind::Mark), if rest.starts_with("::") { 2 } else { first.len_utf8() })
}

/// The length of a `/* … */` with others within.
fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        let (step, change) = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, 1),
            [b'*', b'/', ..] => (2, -1),
            _ => (1, 0),
        };
        at += step;
        depth = depth.saturating_add_signed(change);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a text in quotes, a backslash before a quote in mind.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// The length of a `r#"…"#`, if that is what stands here.
fn raw_string(rest: &str) -> Option<usize> {
    let after = rest.strip_prefix(['b', 'c']).unwrap_or(rest).strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let body = after[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let begin = rest.len() - body.len();
    Some(begin + body.find(&end)? + end.len())
}

#[test]
fn the_rules_read_rust() {
    let text = r##"
        use std::{fs, io::{self, Read}};
        use super::super::store::Store;
        /// a comment about tokio::spawn /* and more */
        fn f<'a>(c: char) -> &'a str { if c == '"' { sled::open("lapin::x \" y") } else { r#"axum"::z"# } }
        mod tests { use super::*; fn g() { super::super::http::get(); } }
    "##;
    let source = Source { name: "src/delivery/event.rs".to_owned(), text: text.to_owned(), tokens: tokens(text) };
    let paths: Vec<String> = source.paths().into_iter().map(|(_, path)| path).collect();
    let named = |path: &str| paths.iter().any(|named| names(named, path));
    for path in [
        "std::fs",
        "std::io::self",
        "std::io::Read",
        "crate::store::Store",
        "sled::open",
        "crate::delivery::event",
        "crate::delivery::http",
    ] {
        assert!(named(path), "{path} is not among {paths:?}");
    }
    for path in ["tokio", "lapin", "axum", "crate::http"] {
        assert!(!named(path), "{path} is among {paths:?}");
    }
}

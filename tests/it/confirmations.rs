//! Destructive commands on a terminal: their questions, and that they do nothing without a yes.

use std::io::Write as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use waypost_core::replay::ReplayState;

use crate::support::dead_letters::{ids, text_field};
use crate::support::wait::poll_until;
use crate::support::{DEFAULT_TIMEOUT, Waypost, wait_until};
use crate::test_app::TestApp;

/// The program ends within this time after its input.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A program on a pseudo-terminal. `script` opens the terminal and passes input and output on.
struct Terminal {
    child: Child,
    keyboard: Option<ChildStdin>,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn start(waypost: &Waypost, arguments: &[&str]) -> Self {
        let words = [&[env!("CARGO_BIN_EXE_waypost")], arguments].concat();
        let command: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
        // The program would inherit an ignored SIGINT from a parent that is a background job.
        let mut script = Command::new("env");
        script.args([
            "--default-signal=INT",
            "script",
            "--quiet",
            "--return",
            "--flush",
            "--command",
            &format!("exec {}", command.join(" ")),
            "/dev/null",
        ]);
        script.env("WAYPOST_SERVER", waypost.url("")).env("SHELL", "/bin/sh");
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = script.spawn().expect("`script` of util-linux starts");
        let keyboard = child.stdin.take();
        let mut output = child.stdout.take().expect("stdout is piped");
        let screen = Arc::<Mutex<String>>::default();
        let shown = screen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            while let Ok(count @ 1..) = std::io::Read::read(&mut output, &mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { child, keyboard, screen }
    }

    fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the question, and types the answer.
    async fn type_answer(mut self, keys: &str) -> (Option<i32>, String) {
        self.wait_for_prompt().await;
        let mut keyboard = self.keyboard.take().expect("the first answer");
        keyboard.write_all(keys.as_bytes()).expect("the keys are typed");
        keyboard.flush().expect("the keys are typed");
        // `script` can miss the end of its program, and then ends with its input. The end of the input is also an
        // answer, so the program first gets time to read the keys.
        let ended = poll_until(EXIT_TIMEOUT, async || self.child.try_wait().expect("its status")).await;
        drop(keyboard);
        let status = match ended {
            Some(status) => status,
            None => {
                wait_until("the end of the program", DEFAULT_TIMEOUT, async || {
                    self.child.try_wait().expect("its status")
                })
                .await
            }
        };
        (status.code(), self.screen())
    }

    async fn wait_for_prompt(&self) {
        wait_until("the question", DEFAULT_TIMEOUT, async || self.screen().contains("Continue? [y/N] ").then_some(()))
            .await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The process has usually ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- the terminal showed:\n{}\n---", self.screen());
        }
    }
}

#[tokio::test]
async fn a_discard_needs_confirmation() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 3).await;
    let discard = ["dead-letters", "discard", "--campaign", "13010", "--because", "a test"];
    // Enter, another word, Ctrl-D, Ctrl-C.
    for keys in ["\n", "no\n", "yess\n", "\u{4}", "\u{3}"] {
        let (code, screen) = Terminal::start(&app.waypost, &discard).type_answer(keys).await;
        assert!(screen.contains("This will discard 3 dead letters of campaign 13010"), "{screen}");
        let expected = if keys == "\u{3}" { Some(130) } else { Some(1) };
        assert_eq!(code, expected, "{keys:?}: {screen}");
        app.waypost.wait_for_state_counts(&[("pending", 3)]).await;
    }
    // A letter that is created after the question is not discarded.
    let terminal = Terminal::start(&app.waypost, &discard);
    terminal.wait_for_prompt().await;
    let asked_about = ids(&app.waypost.letters("").await);
    app.create_dead_letters(3, 2).await;
    let (code, screen) = terminal.type_answer("y\n").await;
    assert_eq!(code, Some(0), "{screen}");
    assert!(screen.contains("discarded 3 dead letters"), "{screen}");
    app.waypost.wait_for_state_counts(&[("pending", 2), ("discarded", 3)]).await;
    for id in &asked_about {
        assert_eq!(text_field(&app.waypost.letter(id).await, "state"), "discarded");
    }
}

#[tokio::test]
async fn erase_cancel_and_delete_need_confirmation() {
    let app = TestApp::start().await;
    app.create_dead_letters(3, 3).await;
    let id = app.waypost.create_replay(&serde_json::json!({ "filter": {}, "ratePerSecond": 0.01 })).await;
    let commands: [(&[&str], &str); 2] = [
        (&["replays", "cancel", &id], "were not sent, and will be pending again"),
        (&["campaigns", "delete", "13010"], "This will delete campaign 13010"),
    ];
    for (command, question) in commands {
        for (keys, expected) in [("n\n", 1), ("YES\n", 0)] {
            let (code, screen) = Terminal::start(&app.waypost, command).type_answer(keys).await;
            assert!(screen.contains(question), "{command:?}: {screen}");
            assert_eq!(code, Some(expected), "{command:?}, {keys:?}: {screen}");
            let is_there = app.waypost.get("/v1/campaigns/13010").await.status == 200;
            assert!(is_there || expected == 0, "{command:?}, {keys:?}");
        }
    }
    assert_eq!(app.waypost.replay(&id).await.state, ReplayState::Cancelled);
    assert_eq!(app.waypost.get("/v1/campaigns/13010").await.status, 404);

    let phone = "+15550001";
    let about = ids(&app.waypost.letters("phoneNumber=%2B15550001").await);
    assert!(!about.is_empty());
    for (keys, expected) in [("n\n", 1), ("y\n", 0)] {
        let (code, screen) = Terminal::start(&app.waypost, &["erase", "--phone", phone]).type_answer(keys).await;
        assert!(screen.contains("This will permanently erase the person's data from "), "{screen}");
        assert_eq!(code, Some(expected), "{keys:?}: {screen}");
        let left = if expected == 0 { 0 } else { about.len() };
        app.waypost.wait_for_letter_count("phoneNumber=%2B15550001", left).await;
    }
}

//! External programs that check files of the project. `make test` installs them. A test fails if its program is
//! missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The root of the repository.
pub(crate) fn project_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the repository.
pub(crate) fn read_project_file(name: &str) -> String {
    std::fs::read_to_string(project_root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A program of `scripts/install-validators` or of `PATH`, to run in the root of the repository.
pub(crate) fn tool_command(name: &str) -> Command {
    let mut command = Command::new(tool_path(name));
    command.current_dir(project_root());
    command
}

fn tool_path(name: &str) -> PathBuf {
    let validator = Path::new(env!("CARGO_TARGET_TMPDIR")).join("validators/bin").join(name);
    if validator.exists() { validator } else { PathBuf::from(name) }
}

/// Runs a command and returns its output. Panics if it fails.
#[track_caller]
pub(crate) fn run_successfully(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "{command:?} failed:\n{}", all_output(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command. It may fail.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    let program = command.get_program().to_owned();
    command.output().unwrap_or_else(|error| {
        panic!(
            "{program:?} does not run ({error}): `make test` installs it (scripts/install-prometheus, scripts/install-validators \
             target/tmp/validators)"
        )
    })
}

/// Standard output and standard error.
pub(crate) fn all_output(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The documents of a YAML text.
#[track_caller]
pub(crate) fn parse_yaml(text: &str) -> Vec<Value> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("text.yaml");
    std::fs::write(&file, text).expect("the YAML file is written");
    // `scripts/install-validators` installs PyYAML.
    let script = "import json, sys, yaml\nprint(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let printed = run_successfully(tool_command("python").args(["-c", script]).arg(&file));
    serde_json::from_str(&printed).expect("JSON")
}

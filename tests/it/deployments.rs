//! The deployment files: compose, the image, Kubernetes and systemd. Each is validated by its own tool, without a
//! container engine or a cluster. The program validates their settings, and rejects unknown names.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use waypost_broker::names::Names;

use crate::support::dead_letters::text_field;
use crate::support::json::{items_of, only_of};
use crate::support::tools::{
    all_output, parse_yaml, project_root, read_project_file, run, run_successfully, tool_command,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_waypost");

/// The maximum time of closing after `shutdown.grace` (docs/SETTINGS.md).
const CLOSING_SECONDS: u64 = 6;

const OVERLAYS: [&str; 2] = ["development", "production"];

/// `waypost check` with only this environment.
fn check_command(environment: &BTreeMap<String, String>) -> Command {
    let mut check = Command::new(PROGRAM);
    // A folder without a waypost.toml.
    check.env_clear().envs(environment).current_dir(project_root().join("deploy")).arg("check");
    check
}

/// The resolved settings of an environment and an optional file.
#[track_caller]
fn settings(environment: &BTreeMap<String, String>, file: Option<&Path>) -> BTreeMap<String, String> {
    let mut check = check_command(environment);
    check.arg("--json");
    if let Some(file) = file {
        check.arg("--config").arg(file);
    }
    let settings: Value = serde_json::from_str(&run_successfully(&mut check)).expect("JSON");
    let settings = settings.get("settings").unwrap_or(&settings).as_array().expect("a list of settings").clone();
    let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    settings.iter().map(|setting| (plain(&setting["key"]), plain(&setting["value"]))).collect()
}

/// Seconds of a duration such as `25s` or `1m0s`.
#[track_caller]
fn seconds(text: &str) -> u64 {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{text}: {error}")).as_secs()
}

/// Asserts that the time to stop covers the grace period and closing.
#[track_caller]
fn assert_stop_time(settings: &BTreeMap<String, String>, given: u64) {
    let needed = seconds(&settings["shutdown.grace"]) + CLOSING_SECONDS;
    assert!(given >= needed, "{given} s to stop, and shutdown.grace needs {needed}");
}

/// Generated secrets as an env file for compose.
fn secrets() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("env").display().to_string();
    run_successfully(tool_command("scripts/compose-secrets").arg(&file));
    (folder, file)
}

/// `docker-compose.yml` with overlays, as compose resolves it.
fn composed(env_file: &str, more: &[&str]) -> Value {
    let mut compose = tool_command("docker-compose");
    compose.args(["--env-file", env_file, "--profile", "sample", "--file", "docker-compose.yml"]);
    more.iter().for_each(|file| {
        compose.args(["--file", file]);
    });
    serde_json::from_str(&run_successfully(compose.args(["config", "--format", "json"]))).expect("JSON")
}

fn map(value: &Value) -> BTreeMap<String, Value> {
    value.as_object().cloned().unwrap_or_default().into_iter().collect()
}

#[test]
fn compose_files_are_valid_pinned_and_have_health_checks() {
    let (_folder, env) = secrets();
    for more in [&[][..], &["deploy/compose/cluster.yml"]] {
        let composed = composed(&env, more);
        let services = map(&composed["services"]);
        let nodes = services.keys().filter(|name| name.starts_with("rabbitmq")).count();
        assert_eq!(nodes, if more.is_empty() { 1 } else { 3 }, "{:?}", services.keys());
        for (name, service) in &services {
            let image = service["image"].as_str().unwrap_or_else(|| panic!("{name} has no image"));
            let version = image.rsplit_once(':').map(|(_, version)| version).unwrap_or_default();
            assert!(version.starts_with(|c: char| c.is_ascii_digit() || c == 'v'), "{name}: {image} is not pinned");
            assert!(service.get("healthcheck").is_some(), "{name} has no health check, and does not disable it");
            for port in service["ports"].as_array().into_iter().flatten() {
                assert_eq!(port["host_ip"], "127.0.0.1", "{name}: {port}");
            }
            for volume in service["volumes"].as_array().into_iter().flatten() {
                if volume["type"] == "bind" {
                    let source = volume["source"].as_str().expect("a source");
                    assert!(Path::new(source).exists(), "{name}: {source} is missing");
                    assert_eq!(volume["read_only"], true, "{name}: {volume}");
                }
            }
        }
        let waypost = &services["waypost"];
        let environment = map(&waypost["environment"]).into_iter();
        let environment = environment.map(|(name, value)| (name, value.as_str().expect("text").to_owned())).collect();
        run_successfully(check_command(&environment).arg("compose/campaign.json"));
        let settings = settings(&environment, None);
        assert_stop_time(&settings, seconds(waypost["stop_grace_period"].as_str().expect("a time to stop")));
        assert_eq!(waypost["healthcheck"]["test"], json!(["CMD", "/usr/local/bin/waypost", "ready"]));
        assert_eq!(waypost["read_only"], true);
    }
}

#[test]
fn compose_has_no_secret_and_says_which_one_is_missing() {
    let output = run(tool_command("docker-compose").args(["--env-file", "/dev/null", "config", "--quiet"]));
    assert!(!output.status.success(), "{output:?}");
    for secret in ["RABBITMQ_PASSWORD", "WAYPOST_HTTP__TOKENS", "WAYPOST_SECRET_KEY", "GRAFANA_PASSWORD"] {
        let wanted = format!("required variable {secret} is missing a value: run scripts/compose-secrets");
        assert!(all_output(&output).contains(&wanted), "{}", all_output(&output));
    }
}

#[test]
fn images_are_built_as_a_linter_advises() {
    run_successfully(tool_command("hadolint").args(["Dockerfile", "deploy/compose/publisher.Dockerfile"]));
}

#[test]
fn the_image_runs_with_settings_the_program_knows() {
    let dockerfile = read_project_file("Dockerfile");
    let variables = dockerfile.split_whitespace().filter_map(|word| word.split_once('='));
    let variables = variables.filter(|(name, _)| name.starts_with("WAYPOST_"));
    let mut environment: BTreeMap<String, String> =
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    assert_eq!(environment.len(), 3, "{environment:?}");
    environment.insert("WAYPOST_HTTP__TOKENS".to_owned(), crate::test_app::token_settings());
    settings(&environment, None);
    for wanted in ["\nUSER 65532:65532\n", "CMD [\"/usr/local/bin/waypost\", \"ready\"]", "\nCMD [\"serve\"]"] {
        assert!(dockerfile.contains(wanted), "Dockerfile has no {wanted:?}");
    }
}

/// The default of an argument of the Dockerfile.
#[track_caller]
fn default_argument(dockerfile: &str, name: &str) -> String {
    let value = dockerfile.lines().find_map(|line| line.strip_prefix(&format!("ARG {name}=")));
    value.unwrap_or_else(|| panic!("the Dockerfile has no default of {name}")).to_owned()
}

/// The value of a line `name = "value"` of `Cargo.toml`.
#[track_caller]
fn manifest_value(name: &str) -> String {
    let manifest = read_project_file("Cargo.toml");
    let value = manifest.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
    value.unwrap_or_else(|| panic!("Cargo.toml has no {name}")).trim_end_matches('"').to_owned()
}

#[test]
fn the_image_has_the_labels_that_registries_read() {
    let dockerfile = read_project_file("Dockerfile");
    assert_eq!(default_argument(&dockerfile, "VERSION"), env!("CARGO_PKG_VERSION"), "a release changes both");
    let license = format!("licenses=\"{}\"", manifest_value("license"));
    for label in [
        "title=\"Waypost\"",
        "description=\"",
        "version=\"${VERSION}\"",
        "revision=\"${REVISION}\"",
        "created=\"${CREATED}\"",
        license.as_str(),
    ] {
        let label = format!("org.opencontainers.image.{label}");
        assert!(dockerfile.contains(&label), "the Dockerfile has no label {label}");
    }
}

#[test]
fn the_image_is_built_with_the_oldest_rust_that_is_supported() {
    let dockerfile = read_project_file("Dockerfile");
    let rust = default_argument(&dockerfile, "RUST");
    let version = manifest_value("rust-version");
    assert!(
        rust.contains(&format!("/rust:{version}.")),
        "{rust} is not Rust {version}, the rust-version of Cargo.toml"
    );
    // Base images are arguments, so that they can be pinned by digest. Other stages are defined in the Dockerfile.
    // `scratch` is empty.
    let stages = ["${RUST} AS build", "${RUNTIME} AS runtime", "scratch AS debug", "runtime"];
    for from in dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")) {
        assert!(stages.contains(&from), "the Dockerfile is built from {from}, which scripts/image does not pin");
    }
}

#[test]
fn deployments_run_the_version_of_this_source_as_the_user_of_the_image() {
    let version = env!("CARGO_PKG_VERSION");
    let dockerfile = read_project_file("Dockerfile");
    let user = dockerfile.lines().find_map(|line| line.strip_prefix("USER ")).expect("a user");
    let (_folder, env) = secrets();
    let composed = composed(&env, &[]);
    assert_eq!(composed["services"]["waypost"]["image"], format!("waypost:{version}"));
    for overlay in OVERLAYS {
        let objects = rendered(overlay);
        let pod = &object_of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        let image = text_field(only_of(&pod["containers"]), "image");
        assert!(image.ends_with(&format!("waypost:{version}")), "{overlay}: {image}");
        let context = &pod["securityContext"];
        assert_eq!(format!("{}:{}", context["runAsUser"], context["runAsGroup"]), user, "{overlay}");
    }
}

#[test]
fn the_image_build_copies_all_sources() {
    let (dockerfile, let_in) = (read_project_file("Dockerfile"), read_project_file(".dockerignore"));
    assert!(dockerfile.contains("\nCOPY . .\n"), "the Dockerfile copies exactly what .dockerignore includes");
    let has = |path: &str| {
        assert!(let_in.lines().any(|line| line == format!("!{path}")), ".dockerignore excludes {path}");
    };
    for path in let_in.lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(project_root().join(path).exists(), ".dockerignore includes {path}, which does not exist");
    }
    // The files that the build needs, besides those that the sources include. Tests are excluded.
    let needed = [
        "Cargo.toml",
        "Cargo.lock",
        "LICENSE",
        "scripts/image-sbom",
        "scripts/split-debug",
        "src",
        "crates",
        "benches",
    ];
    needed.into_iter().for_each(has);
    let manifest = read_project_file("Cargo.toml");
    let dependencies = manifest.lines().filter(|line| line.contains('{'));
    let paths = dependencies.filter_map(|line| line.split_once("path = \"").map(|(_, path)| path));
    paths.filter_map(|path| path.split(['"', '/']).next()).for_each(has);
    let mut folders = vec![project_root().join("src"), project_root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a source file");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if path.ends_with("tests.rs") {
                continue;
            }
            for macro_name in ["include_str!(\"", "include_bytes!(\""] {
                for after in code.split(macro_name).skip(1) {
                    let named = after.split('"').next().expect("a path");
                    let root = project_root().canonicalize().expect("the project");
                    let included = folder.join(named).canonicalize().unwrap_or_else(|error| panic!("{named}: {error}"));
                    let place = included.strip_prefix(root).expect("a file of the project").iter().next();
                    has(place.and_then(|place| place.to_str()).expect("a folder"));
                }
            }
        }
    }
}

/// The objects of an overlay.
fn rendered(overlay: &str) -> Vec<Value> {
    let folder = format!("deploy/kubernetes/overlays/{overlay}");
    parse_yaml(&run_successfully(tool_command("kubectl").args(["kustomize", &folder])))
}

fn object_of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

/// The first destination of the first rule for outgoing connections: the DNS service of the cluster.
fn dns_peer(policy: &Value) -> &Value {
    let rule = items_of(&policy["spec"]["egress"]).first().unwrap_or_else(|| panic!("no rules: {policy:#}"));
    items_of(&rule["to"]).first().unwrap_or_else(|| panic!("no destinations: {policy:#}"))
}

/// Custom resources, for which Kubernetes has no schema. `tests/fixtures/custom-resources` has schemas of the fields
/// that we use.
fn is_custom(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    ["keda.sh/", "monitoring.coreos.com/"].iter().any(|group| version.starts_with(group))
}

#[test]
fn kustomize_overlays_are_valid() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for overlay in OVERLAYS {
        let (custom, known): (Vec<Value>, Vec<Value>) = rendered(overlay).into_iter().partition(is_custom);
        assert_eq!(custom.is_empty(), overlay == "development");
        for object in custom {
            let kind = object["kind"].as_str().expect("a kind");
            let schema = read_project_file(&format!("tests/fixtures/custom-resources/{kind}.json"));
            let schema: Value = serde_json::from_str(&schema).expect("a schema in JSON");
            let validator = jsonschema::draft202012::new(&schema).expect("a schema");
            let faults: Vec<String> =
                validator.iter_errors(&object).map(|fault| format!("{}: {fault}", fault.instance_path())).collect();
            assert!(faults.is_empty(), "{kind}: {faults:#?}");
        }
        // JSON is YAML, with one document on each line.
        let file = folder.path().join(overlay);
        let documents = known.iter().map(|object| format!("---\n{object}\n")).collect::<String>();
        std::fs::write(&file, documents).expect("written");
        for version in ["1.30", "1.37"] {
            run_successfully(
                tool_command("kubernetes-validate")
                    .args(["--strict", "--quiet", "--kubernetes-version", version])
                    .arg(&file),
            );
        }
    }
}

#[test]
fn pods_have_settings_the_program_knows_and_time_to_stop() {
    let secrets = BTreeMap::from([
        ("broker-url", "amqps://waypost:secret@rabbitmq.rabbitmq:5671/%2f".to_owned()),
        ("http-tokens", crate::test_app::token_settings()),
        ("secret-key", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=".to_owned()),
    ]);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for overlay in OVERLAYS {
        let objects = rendered(overlay);
        let pod = &object_of_kind(&objects, "Deployment")["spec"]["template"]["spec"];
        let container = only_of(&pod["containers"]);
        let file = folder.path().join("waypost.toml");
        std::fs::write(&file, object_of_kind(&objects, "ConfigMap")["data"]["waypost.toml"].as_str().expect("text"))
            .expect("written");
        let value = |variable: &Value| match variable["valueFrom"]["secretKeyRef"]["key"].as_str() {
            Some(key) => secrets.get(key).unwrap_or_else(|| panic!("no key {key} in the README")).clone(),
            None => variable["value"].as_str().expect("a value").to_owned(),
        };
        let variables = container["env"].as_array().expect("variables");
        let environment =
            variables.iter().map(|variable| (variable["name"].as_str().expect("a name").to_owned(), value(variable)));
        let settings = settings(&environment.collect(), Some(&file));
        assert_stop_time(&settings, pod["terminationGracePeriodSeconds"].as_u64().expect("a time to stop"));
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        assert!(mounts.iter().any(|mount| mount["mountPath"] == settings["store.path"].as_str()), "{mounts:?}");
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/healthz");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    }
    let readme = read_project_file("deploy/kubernetes/README.md");
    for key in secrets.keys() {
        assert!(
            readme.contains(&format!("--from-literal={key}=")),
            "deploy/kubernetes/README.md does not create {key}"
        );
    }
}

#[test]
fn selectors_match_pods_and_triggers_match_queues() {
    let objects = rendered("production");
    let labels = map(&object_of_kind(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"]);
    let meets = |selector: &Value| {
        let wanted = map(selector);
        !wanted.is_empty() && wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
    };
    for (kind, selector) in [
        ("Deployment", "/spec/selector/matchLabels"),
        ("Service", "/spec/selector"),
        ("PodDisruptionBudget", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "/spec/podSelector/matchLabels"),
    ] {
        let selector = object_of_kind(&objects, kind).pointer(selector).unwrap_or(&Value::Null);
        assert!(meets(selector), "{kind}: {selector}, and the pods have {labels:?}");
    }
    let service = map(&object_of_kind(&objects, "Service")["metadata"]["labels"]);
    let monitor = object_of_kind(&objects, "ServiceMonitor");
    let watched = map(&monitor["spec"]["selector"]["matchLabels"]);
    assert!(watched.iter().all(|(name, value)| service.get(name) == Some(value)), "{watched:?} and {service:?}");
    // The alerts select this job.
    let job = monitor["spec"]["jobLabel"].as_str().expect("a label");
    assert_eq!(service[job], "waypost");
    // Only well-known labels select pods of other applications.
    let dns = dns_peer(object_of_kind(&objects, "NetworkPolicy"));
    let dns = &dns["podSelector"]["matchLabels"];
    assert_eq!(*dns, json!({ "k8s-app": "kube-dns" }));
    let names = Names::new("waypost");
    let triggers = object_of_kind(&objects, "ScaledObject")["spec"]["triggers"].as_array().expect("triggers").clone();
    let queues: Vec<&str> = triggers.iter().filter_map(|trigger| trigger["metadata"]["queueName"].as_str()).collect();
    assert_eq!(queues, [names.events(), names.retries()]);
}

/// `systemd-analyze` is part of systemd.
#[cfg(target_os = "linux")]
#[test]
fn the_systemd_unit_is_valid_and_hardened() {
    let unit = read_project_file("deploy/systemd/waypost.service");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let here = folder.path().join("waypost.service");
    // `systemd-analyze` checks that the program exists.
    std::fs::write(&here, unit.replace("/usr/local/bin/waypost serve", &format!("{PROGRAM} serve"))).expect("written");
    // `systemd-analyze` only warns about unknown keys.
    let verified = run(tool_command("systemd-analyze").args(["verify", "--man=no"]).arg(&here));
    assert!(
        verified.status.success() && !all_output(&verified).contains("waypost.service"),
        "{}",
        all_output(&verified)
    );
    run_successfully(
        tool_command("systemd-analyze").args(["security", "--no-pager", "--offline=true", "--threshold=15"]).arg(&here),
    );
    let setting = |name: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("no {name}"))
    };
    let environment = setting("Environment").split(' ').filter_map(|pair| pair.split_once('='));
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let example = project_root().join("waypost.example.toml");
    assert_stop_time(&settings(&environment, Some(&example)), setting("TimeoutStopSec").parse().expect("seconds"));
}

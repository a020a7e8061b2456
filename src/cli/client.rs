//! The options that name a worker, and what a failed request means for a person.

use std::path::PathBuf;

use clap::Args;
use reqwest::{Certificate, StatusCode, Url};
use secrecy::SecretString;
use waypost_api::client::{Client, ClientConfig, ClientError};
use waypost_broker::tls;

use super::error::CliError;

#[derive(Args, Clone)]
pub(super) struct Server {
    /// The worker's address
    #[arg(long, env = "WAYPOST_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL", value_parser = parse_address)]
    server: Url,
    /// The API token, if the worker requires one
    #[arg(long, env = "WAYPOST_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<SecretString>,
    /// PEM file of certificate authorities to trust in addition to the system's
    #[arg(long, env = "WAYPOST_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

pub(super) fn parse_address(text: &str) -> Result<Url, String> {
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| "write it as http://HOST:PORT".to_owned())
}

/// Refuses ids that would change the path of the URL they are put into.
pub(super) fn parse_id(text: &str) -> Result<String, String> {
    if matches!(text, "" | "." | "..") { Err("this is not an id".to_owned()) } else { Ok(text.to_owned()) }
}

impl Server {
    pub(super) fn without_token(url: &str) -> Result<Self, CliError> {
        Ok(Self { server: url.parse().map_err(CliError::new)?, token: None, ca_file: None })
    }

    pub(super) fn client(self) -> Result<Client, CliError> {
        let authorities = self.authorities()?;
        Client::new(ClientConfig { server: self.server, token: self.token, authorities }).map_err(CliError::new)
    }

    fn authorities(&self) -> Result<Vec<Certificate>, CliError> {
        let Some(path) = &self.ca_file else { return Ok(Vec::new()) };
        let usage_error = |error: String| CliError::Usage(format!("--ca-file {}: {error}", path.display()));
        let pem = std::fs::read(path).map_err(|error| usage_error(error.to_string()))?;
        let authorities = tls::authorities(&pem).map_err(usage_error)?;
        authorities.iter().map(|authority| Certificate::from_der(authority).map_err(CliError::new)).collect()
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::Failed(match error {
            ClientError::Unreachable { .. } => {
                format!("{error}. Is a worker running there? Set its address with --server or WAYPOST_SERVER")
            }
            ClientError::Unreadable(_) => format!(
                "{error}. This command has version {}: use the version of the server. To list or show something, --json works too",
                env!("CARGO_PKG_VERSION")
            ),
            error => refusal_text(&error),
        })
    }
}

/// The error, with the options that would prevent it.
pub(super) fn refusal_text(error: &ClientError) -> String {
    match error {
        ClientError::Refused { status: StatusCode::UNAUTHORIZED, problem: Some(problem) }
            if problem.errors.is_empty() =>
        {
            format!("{error} (--token or WAYPOST_TOKEN)")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use waypost_api::problem::ProblemDocument;

    use super::*;

    fn text(error: ClientError) -> String {
        match CliError::from(error) {
            CliError::Failed(text) | CliError::Usage(text) => text,
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let refused = |status: StatusCode, detail: Option<&str>| ClientError::Refused {
            status,
            problem: detail.map(|detail| ProblemDocument {
                kind: String::new(),
                title: String::new(),
                status: status.as_u16(),
                detail: detail.to_owned(),
                errors: Vec::new(),
            }),
        };
        assert_eq!(text(refused(StatusCode::UNAUTHORIZED, Some("no token"))), "no token (--token or WAYPOST_TOKEN)");
        assert_eq!(text(refused(StatusCode::UNAUTHORIZED, None)), "the server answered 401 Unauthorized");
        assert_eq!(text(refused(StatusCode::NOT_FOUND, Some("no such replay"))), "no such replay");
        let unreachable =
            ClientError::Unreachable { server: "http://h:1".parse().unwrap(), cause: "refused".to_owned() };
        assert_eq!(
            text(unreachable),
            "no response from http://h:1/ (refused). Is a worker running there? Set its address with --server or WAYPOST_SERVER"
        );
        let unreadable = text(ClientError::Unreadable("state: unknown variant `x`".to_owned()));
        assert!(unreadable.starts_with("the server's answer can't be read: state: unknown variant `x`. This command"));
        assert!(
            unreadable.ends_with("use the version of the server. To list or show something, --json works too"),
            "{unreadable}"
        );
    }
}

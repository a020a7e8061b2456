//! `waypost contract`: what others build against, without a server.

use clap::{Args, ValueEnum};

use super::stdio::say;
use crate::schemas;

#[derive(Args)]
pub(super) struct Contract {
    /// Which of them
    #[arg(value_enum)]
    what: What,
}

#[derive(ValueEnum, Clone, Copy)]
enum What {
    /// The JSON Schema of a step event
    Event,
    /// The JSON Schema of a campaign document
    Campaign,
    /// The AsyncAPI description of the exchange that takes events
    Asyncapi,
}

impl Contract {
    pub(super) fn run(self) {
        let document = match self.what {
            What::Event => schemas::event(),
            What::Campaign => schemas::campaign(),
            What::Asyncapi => schemas::asyncapi(),
        };
        say!("{document:#}");
    }
}

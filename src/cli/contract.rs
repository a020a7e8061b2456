//! `waypost contract`: prints the JSON Schemas and the AsyncAPI description.

use clap::{Args, ValueEnum};

use super::stdio::out;
use crate::schemas;

#[derive(Args)]
pub(super) struct Contract {
    /// The document to print
    #[arg(value_enum)]
    document: ContractDocument,
}

#[derive(ValueEnum, Clone, Copy)]
enum ContractDocument {
    /// The JSON Schema of a step event
    Event,
    /// The JSON Schema of a campaign document
    Campaign,
    /// The AsyncAPI description of the events exchange
    Asyncapi,
}

impl Contract {
    pub(super) fn run(self) {
        let document = match self.document {
            ContractDocument::Event => schemas::event(),
            ContractDocument::Campaign => schemas::campaign(),
            ContractDocument::Asyncapi => schemas::asyncapi(),
        };
        out!("{document:#}");
    }
}

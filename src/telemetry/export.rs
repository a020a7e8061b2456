//! Exports spans to a collector by OTLP over HTTP, in batches and from a separate thread. If the collector is
//! unavailable, spans are lost, but deliveries continue.

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use url::Url;
use waypost_engine::spans::TARGET;

/// The path of traces below the collector's address, as OTLP defines it.
const TRACES_PATH: &str = "v1/traces";

/// The exporter of spans could not be built.
#[derive(Debug, thiserror::Error)]
#[error("telemetry.otlpEndpoint: {0}")]
pub struct TelemetryError(String);

/// `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and the other variables of OpenTelemetry apply. Without them, all traces
/// are sampled except those that the publisher has excluded.
pub(super) fn provider(endpoint: &Url) -> Result<SdkTracerProvider, TelemetryError> {
    let address = format!("{}/{TRACES_PATH}", endpoint.as_str().trim_end_matches('/'));
    let exporter = SpanExporter::builder().with_http().with_endpoint(address).with_protocol(Protocol::HttpBinary);
    let exporter = exporter.build().map_err(|error| TelemetryError(error.to_string()))?;
    let resource = Resource::builder().with_service_name(service_name());
    let provider = SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter);
    Ok(provider.build())
}

fn service_name() -> String {
    std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned())
}

/// A layer that passes only spans to the provider.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
    let layer = tracing_opentelemetry::layer().with_tracer(tracer).with_location(false).with_threads(false);
    layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::INFO))
}

//! Reads and parses the next records of the campaigns stream while the records before them are applied. A worker that
//! reads many records uses two cores.

use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use waypost_broker::BrokerError;
use waypost_broker::stream_reader::{StreamReader, StreamRecord};
use waypost_store::CampaignsEntry;
use waypost_store::record::CampaignsRecord;

/// Maximum number of records applied in one transaction.
const MAX_BATCH_RECORDS: usize = 250;

/// Maximum number of bytes applied in one transaction; the last record may exceed them. In memory they are several times
/// as large. Three batches are in memory: one is applied, one waits, and one is read.
const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// A task that reads a stream. It ends when this is dropped, and changes nothing but the position of the reader.
pub(super) struct ReadAhead {
    batches: mpsc::Receiver<Result<RecordBatch, BrokerError>>,
    _task: AbortOnDropHandle<()>,
}

/// Records that had arrived when the first of them was read.
pub(super) struct RecordBatch {
    pub(super) entries: Vec<CampaignsEntry>,
    /// Whether the records that the stream had when reading started end in this batch or before. A batch ends where they
    /// end: the view is current before newer records are applied.
    pub(super) is_caught_up: bool,
}

impl ReadAhead {
    /// Starts to read. `stream` is the name of the stream.
    pub(super) fn start(mut reader: StreamReader, stream: String) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            loop {
                let batch = read_batch(&mut reader, &stream).await;
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    return;
                }
            }
        });
        Self { batches, _task: AbortOnDropHandle::new(task) }
    }

    /// Waits for the next batch, which has at least one record. No record is lost if the future is dropped.
    ///
    /// # Errors
    /// [`BrokerError::ChannelFailed`].
    pub(super) async fn next(&mut self) -> Result<RecordBatch, BrokerError> {
        let ended = || {
            let error = "the reader of the stream has ended".to_owned();
            Err(BrokerError::ChannelFailed { operation: "reading a stream", error })
        };
        self.batches.recv().await.unwrap_or_else(ended)
    }
}

/// Reads the next record and the records that have arrived after it.
async fn read_batch(reader: &mut StreamReader, stream: &str) -> Result<RecordBatch, BrokerError> {
    let was_caught_up = reader.is_caught_up();
    let mut entries = Vec::new();
    let mut bytes = 0;
    let mut next = Some(reader.next().await?);
    while let Some(record) = next {
        bytes += record.body.len();
        let content = parse_record(&record, stream);
        entries.push(CampaignsEntry { position: record.position, record: content });
        let ends_here = !was_caught_up && reader.is_caught_up();
        let is_full = entries.len() >= MAX_BATCH_RECORDS || bytes >= MAX_BATCH_BYTES;
        next = if ends_here || is_full { None } else { reader.next_ready()? };
    }
    Ok(RecordBatch { entries, is_caught_up: reader.is_caught_up() })
}

fn parse_record(record: &StreamRecord, stream: &str) -> Option<CampaignsRecord> {
    CampaignsRecord::read(&record.body)
        .inspect_err(|error| {
            // Another version of Waypost may have written the record.
            tracing::error!(log = stream, offset = record.position.offset, %error, "unreadable record skipped");
        })
        .ok()
}

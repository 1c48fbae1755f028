//! Writing a log without a broker, blocking: for tools. Nobody else may have the directory open.

use super::{
    AppendError, Io, IoError, Log, LogFailure, LogOptions, OpenError, OpenReport, Replay,
    SegmentId, StdIo, at_once, open,
};
use std::path::PathBuf;

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The log does not take it.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log has failed.
    #[error(transparent)]
    Log(#[from] LogFailure),
    /// A file cannot be opened.
    #[error(transparent)]
    Io(#[from] IoError),
}

/// A log and what runs its work.
pub struct OfflineLog {
    /// The log.
    pub log: Log,
    io: StdIo,
    open: Option<(SegmentId, <StdIo as Io>::File)>,
}

impl OfflineLog {
    /// Opens the log in a directory; see [`open`].
    pub fn open(
        directory: PathBuf,
        options: LogOptions,
        replay: &mut dyn Replay,
    ) -> Result<(Self, OpenReport), OpenError> {
        let io = StdIo::new(directory);
        let (log, report) = at_once(open(&io, options, replay))?;
        let offline = Self {
            log,
            io,
            open: None,
        };
        Ok((offline, report))
    }

    /// Appends, and makes room for it first where that is needed.
    pub fn append<T>(
        &mut self,
        mut append: impl FnMut(&mut Log) -> Result<T, AppendError>,
    ) -> Result<T, OfflineError> {
        match append(&mut self.log) {
            Err(AppendError::Busy) => {
                self.settle()?;
                Ok(append(&mut self.log)?)
            }
            result => Ok(result?),
        }
    }

    /// Makes everything durable that was appended, and does what work there is.
    pub fn settle(&mut self) -> Result<(), OfflineError> {
        loop {
            if let Some(write) = self.log.next_write(0) {
                let file = match &self.open {
                    Some((segment, file)) if *segment == write.segment => file.clone(),
                    _ => at_once(self.io.open(&write.segment.file_name()))?,
                };
                self.open = Some((write.segment, file.clone()));
                let written = at_once(async {
                    self.io
                        .write_at(&file, write.file_offset, &write.bytes)
                        .await?;
                    self.io.sync(&file).await
                });
                self.log.write_done(write.id, written)?;
            } else if let Some(job) = self.log.next_job() {
                let done = at_once(job.run(&self.io));
                self.log.job_done(done)?;
            } else {
                return Ok(());
            }
        }
    }
}

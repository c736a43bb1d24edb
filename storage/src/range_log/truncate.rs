//! Shortening a log: from above (truncation), and altogether.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use minikafka_core::{Epoch, LogPoint};

use super::RecoveryVisitor;
use super::state::{Inner, State};
use crate::disk::Disk;
use crate::error::{DiskError, DiskResult, LogError, ReadError};
use crate::freed_runs;
use crate::segment::SegmentFile;

/// How often a file that is to be given away looks whether its last reader is gone.
const READERS_POLL: Duration = Duration::from_millis(1);

impl<D: Disk> Inner<D> {
    /// Makes `point` the end, durably, and replays the state.
    pub async fn truncate_to(
        self: &Rc<Self>,
        point: LogPoint,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<(), LogError> {
        self.state.borrow_mut().stopped = true;
        let result = self.truncate_stopped(point, visitor).await;
        self.state.borrow_mut().stopped = false;
        self.seal_next();
        self.notify();
        result
    }

    async fn truncate_stopped(
        self: &Rc<Self>,
        point: LogPoint,
        visitor: &mut impl RecoveryVisitor,
    ) -> Result<(), LogError> {
        let loss = self.state.borrow().loss.clone();
        if let Some(loss) = loss {
            return Err(LogError::Damaged(loss));
        }
        self.settle().await?;
        self.check_point(point).await?;
        if self.state.borrow().end != point {
            let void = self.state.borrow_mut().cut(self, point);
            self.pump();
            let number = self.state.borrow().last_flush_number;
            self.wait_durable_flush(number).await?;
            for file in void {
                self.give_back(file).await?;
            }
            self.refresh_last_entries().await?;
            self.settle_cut_extents().await?;
            self.settle_last_entry();
        }
        self.replay_from_footer(visitor).await
    }

    /// Waits until nothing is in flight: no flush, no footer.
    pub async fn settle(self: &Rc<Self>) -> Result<(), LogError> {
        let has_open = self.state.borrow().open.is_some();
        if has_open {
            self.state.borrow_mut().close_open(self);
            self.pump();
        }
        self.changed
            .wait_for(|| {
                let state = self.state.borrow();
                let is_settled = state.in_flight.is_empty() && state.open.is_none() && !state.sealing;
                match &state.failure {
                    Some(failure) => Some(Err(failure.clone())),
                    None if is_settled => Some(Ok(())),
                    None => state
                        .active()
                        .filter(|active| active.file.waits_for_space())
                        .map(|active| Err(no_space(&active.file.path))),
                }
            })
            .await
    }

    async fn check_point(&self, point: LogPoint) -> Result<(), LogError> {
        let refuse = |reason| Err(LogError::Truncate { to: point.index, hash: point.hash.0, reason });
        let (sealed_end, end, committed) = {
            let state = self.state.borrow();
            (state.sealed_end(), state.end, state.committed)
        };
        if point.index > end.index {
            return refuse("the log ends before it");
        }
        if point.index < sealed_end.index || point.index < committed {
            return refuse("entries above it are committed; this node must leave the chain");
        }
        match self.point_at(point.index).await {
            Ok(Some(known)) if known == point => Ok(()),
            Ok(_) => refuse("the log has another entry there"),
            Err(ReadError::Disk(error)) => Err(error.into()),
            Err(ReadError::Damaged(damage)) => Err(LogError::Damaged(damage)),
            Err(ReadError::Dropped { .. } | ReadError::Freed { .. }) => refuse("the log begins above it"),
        }
    }

    /// Gives a file to the pool once its last reader is gone; one with holes is unlinked, and after it its sidecar: the
    /// other way round, a crash between could leave holes that nothing explains.
    pub async fn give_back(&self, file: Rc<SegmentFile<D>>) -> Result<(), LogError> {
        while Rc::strong_count(&file) > 1 {
            self.storage.disk.sleep(READERS_POLL).await;
        }
        let (disk, path) = (&self.storage.disk, &file.path);
        let bytes = file.size(disk).await?;
        file.close().await?;
        if file.is_reusable() {
            return Ok(self.storage.pool.release(path, bytes).await?);
        }
        disk.remove(path).await.on("remove", path)?;
        disk.sync_dir(&self.dir).await.on("sync directory", &self.dir)?;
        Ok(freed_runs::remove(disk, path).await?)
    }

    pub async fn persist_marker(self: &Rc<Self>, epoch: Epoch) -> Result<bool, LogError> {
        {
            let mut state = self.state.borrow_mut();
            assert!(epoch >= state.marker, "a marker only grows: {} is there, not {epoch}", state.marker);
            if let Some(failure) = &state.failure {
                return Err(failure.clone());
            }
            state.marker = epoch;
            if state.segments.is_empty() {
                return Ok(false);
            }
        }
        self.flush_now().await?;
        Ok(true)
    }

    pub fn seal_tail(self: &Rc<Self>) {
        {
            let mut state = self.state.borrow_mut();
            let is_idle = state.in_flight.is_empty() && state.open.is_none() && state.failure.is_none();
            if !is_idle
                || state.stopped
                || state.loss.is_some()
                || state.covered >= state.durable
                || state.active().is_none()
            {
                return;
            }
            state.close_empty(self);
        }
        self.pump();
    }

    /// Gives a file back that was prepared ahead; one that still waits for space stays a name without a file.
    pub async fn give_back_prepared(&self, file: Rc<SegmentFile<D>>) -> Result<(), LogError> {
        if file.waits_for_space() {
            return Ok(());
        }
        drop(file.file(&self.storage.disk).await?);
        self.give_back(file).await
    }

    pub async fn close(self: &Rc<Self>, snapshot: Option<&dyn Fn() -> Vec<u8>>) -> Result<(), LogError> {
        let settled = self.settle().await;
        if settled.is_ok() {
            self.seal_tail();
        }
        let settled = match settled {
            Ok(()) => self.settle().await,
            failed => failed,
        };
        self.stop_freeing().await;
        let (files, next) = {
            let mut state = self.state.borrow_mut();
            let files: Vec<_> = state.segments.iter().map(|segment| segment.file.clone()).collect();
            (files, state.next.take())
        };
        if let Some(next) = next {
            self.give_back_prepared(next).await?;
        }
        if let (Ok(()), Some(snapshot)) = (&settled, snapshot) {
            self.write_checkpoint(snapshot()).await?;
        }
        for file in files {
            file.close().await?;
        }
        settled
    }

    /// Gives every file to the pool, newest first, so that what a crash leaves is still a log.
    pub async fn delete(self: &Rc<Self>) -> Result<(), LogError> {
        match self.settle().await {
            Ok(()) | Err(LogError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        self.stop_freeing().await;
        let next = self.state.borrow_mut().next.take();
        if let Some(next) = next {
            self.give_back_prepared(next).await?;
        }
        loop {
            let last = self.state.borrow_mut().segments.pop_back().map(|segment| segment.file);
            match last {
                Some(file) => self.give_back(file).await?,
                None => return Ok(()),
            }
        }
    }
}

fn no_space(path: &Path) -> LogError {
    let reason = io::Error::new(io::ErrorKind::StorageFull, "the segment waits for space");
    DiskError::new("prepare", path, reason).into()
}

impl<D: Disk> State<D> {
    /// Makes `point` the end and closes the empty flush that will make it durable; returns the files that hold nothing any
    /// more, to be given back after that.
    fn cut(&mut self, log: &Inner<D>, point: LogPoint) -> Vec<Rc<SegmentFile<D>>> {
        for segment in self.segments.iter_mut().filter(|segment| segment.end.index > point.index) {
            if segment.start.index > point.index {
                segment.start = point;
            }
            segment.end = point;
            if let Some(unsealed) = segment.unsealed_mut() {
                unsealed.index.cut(point.index);
                unsealed.snapshot = None;
            }
        }
        self.end = point;
        self.durable = point.index;
        self.covered = self.covered.min(point.index);
        self.close_empty(log);
        let last = self.segments.len() - 1;
        let (mut at, mut void) = (0, Vec::new());
        self.segments.retain(|segment| {
            let is_void = at != last && segment.unsealed().is_some_and(|unsealed| unsealed.index.is_empty());
            at += 1;
            if is_void {
                void.push(segment.file.clone());
            }
            !is_void
        });
        void
    }
}

//! RocksMQ.
use super::{Context, Delivery, LogSource, Start};
use crate::error::Result;
use crate::milvus::channel::PChannel;
use crate::pipeline::RocksmqConfig;
use crossbeam_channel::Receiver;
/// RocksMQ.
pub struct RocksMq;
impl RocksMq {
    /// Connects.
    pub fn connect(_config: &RocksmqConfig, _context: Context) -> Result<RocksMq> {
        Ok(RocksMq)
    }
}
impl LogSource for RocksMq {
    fn open(&self, _channel: &PChannel, _start: Start) -> Receiver<Delivery> {
        crossbeam_channel::bounded(1).1
    }
    fn close(&self, _channel: &PChannel) {}
}

//! Many short histories on one machine.

use super::compare::{Rig, findings, play};
use super::history::{Op, Setup, Slip};
use super::judge::Found;
use super::state::PAGE;

/// Many short histories on one machine: setting one up costs more than playing them. The findings are compared at the end.
pub(crate) struct Batch {
    rig: Rig,
    /// The histories since the machine was set up, with the number of the first event.
    played: Vec<(usize, Vec<Op>)>,
    found: Vec<Found>,
    count: usize,
}

impl Batch {
    /// Histories of one machine.
    const SIZE: usize = 1000;

    /// Histories on `pages`.
    pub(crate) fn new(setup: Setup, pages: std::ops::Range<usize>) -> Self {
        Self { rig: Rig::over(setup, pages), played: Vec::new(), found: Vec::new(), count: 0 }
    }

    /// Plays a history and unmaps what is left.
    pub(crate) fn play(&mut self, history: &[Op]) {
        self.played.push((self.rig.step, history.to_vec()));
        self.count += 1;
        let result = history.iter().try_for_each(|op| self.rig.apply(op)).and_then(|()| self.rig.restart(&mut self.found));
        if let Err(difference) = result {
            panic!("{difference}\nafter {history:#?}");
        }
        if self.played.len() == Self::SIZE {
            self.settle();
        }
    }

    /// Compares the findings and sets a new machine up.
    pub(super) fn settle(&mut self) {
        let core = findings(&self.rig.core.finish());
        self.found.sort();
        let differs = core.iter().zip(&self.found).find(|(a, b)| a != b).map(|(a, b)| a.site.max(a.map_site).min(b.site.max(b.map_site)));
        let longer =
            [&core, &self.found].into_iter().max_by_key(|list| list.len()).and_then(|list| list.get(core.len().min(self.found.len())));
        if let Some(site) = differs.or_else(|| longer.filter(|_| core.len() != self.found.len()).map(|f| f.site.max(f.map_site))) {
            let step = usize::try_from(site / 8).unwrap();
            let history = self.played.iter().rev().find(|(first, _)| *first < step).map(|(_, history)| history.clone()).unwrap_or_default();
            let alone = play(self.rig.setup, &history).map(|found| found.len());
            let only = |these: &[Found], those: &[Found]| these.iter().filter(|f| !those.contains(f)).take(3).cloned().collect::<Vec<_>>();
            let (more, less) = (only(&core, &self.found), only(&self.found, &core));
            panic!("core only: {more:?}\nmodel only: {less:?}\nprobably in {history:#?}\nwhich alone: {alone:?}");
        }
        self.rig = Rig::over(self.rig.setup, self.rig.pages.clone());
        self.played.clear();
        self.found.clear();
    }

    /// Compares what is left. Says how many histories were played.
    pub(crate) fn end(mut self) -> usize {
        self.settle();
        self.count
    }
}

impl Rig {
    /// All is unmapped and written anew; what was found goes to `found`.
    pub(super) fn restart(&mut self, found: &mut Vec<Found>) -> Result<(), String> {
        self.step += 1;
        self.poll_all()?;
        self.compare()?;
        for m in self.model.live() {
            self.unmap(m, false, Slip::Nothing);
        }
        self.compare()?;
        for page in self.pages.clone() {
            if self.model.pages[page].iter().any(|b| b.cpu != 0) {
                self.cpu(page, 0, PAGE, Some(&[0; PAGE]));
            }
        }
        found.append(&mut self.model.judge.all());
        self.model.judge.found.clear();
        self.model.maps.clear();
        Ok(())
    }
}

use super::*;

#[test]
fn markers_differ_and_begin_with_a_control_character() {
    let (a, b) = (marker(), marker());
    assert_ne!(a, b);
    assert!(a.starts_with('\u{1}') && a.len() == 45, "{a:?}");
}

/// What the lab tests below run in the outer machine: this test program with this test's name.
#[test]
#[ignore = "is the command run inside the lab"]
fn inside() {
    let Some(dir) = std::env::var_os("LAB_TEST_DIR").map(PathBuf::from) else { return };
    let what = std::env::var("LAB_TEST").unwrap_or_default();
    println!("hello from {}", std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap().trim());
    eprintln!("and on stderr");
    assert!(std::path::Path::new("/dev/kvm").exists());
    std::fs::write(dir.join("big"), vec![b'x'; 2 << 20]).unwrap();
    std::fs::write(dir.join("text"), std::fs::read_to_string(std::env::var_os("LAB_TEST_FILE").unwrap()).unwrap()).unwrap();
    match what.as_str() {
        "panic" => std::fs::write("/proc/sysrq-trigger", "c").unwrap(),
        "forever" => std::thread::sleep(Duration::from_secs(1000)),
        _ => std::process::exit(3),
    }
}

struct Bench {
    dir: tempfile::TempDir,
    cache: Cache,
    cancel: AtomicBool,
    events: Vec<LabEvent>,
    times: Vec<Instant>,
}

impl Bench {
    fn new() -> Self {
        // The shared cache: a kernel is 60 MB to fetch.
        Self {
            dir: tempfile::tempdir().unwrap(),
            cache: Cache::open(None).unwrap(),
            cancel: AtomicBool::new(false),
            events: Vec::new(),
            times: Vec::new(),
        }
    }

    fn run(&mut self, what: &str, jobs: usize, set: impl FnOnce(&mut LabOptions<'_>)) -> Result<Vec<LabResult>, LabError> {
        let given = self.dir.path().join("it's given");
        std::fs::write(&given, "from the host").unwrap();
        let run_dir = |i: usize| self.dir.path().join(format!("run {i}"));
        let jobs: Vec<LabJob> = (0..jobs)
            .map(|i| LabJob {
                argv: ["--exact", "lab::tests::inside", "--ignored", "--nocapture"].map(OsString::from).into(),
                files: vec![given.clone()],
                run_dir: run_dir(i),
                trace: None,
            })
            .collect();
        let mut options = LabOptions::new(&self.cache, &self.cancel);
        options.environment = vec![
            ("LAB_TEST".into(), what.into()),
            ("LAB_TEST_DIR".into(), run_dir(0).display().to_string()),
            ("LAB_TEST_FILE".into(), given.display().to_string()),
        ];
        set(&mut options);
        run(&jobs, &options, &mut |event| {
            if matches!(event, LabEvent::JobStarted(_)) && what == "cancelled" {
                self.cancel.store(true, Ordering::Relaxed);
            }
            self.events.push(event);
            self.times.push(Instant::now());
        })
    }

    fn output(&self, job: usize, stream: Stream) -> String {
        let bytes = self.events.iter().filter_map(|e| match e {
            LabEvent::Output { job: j, stream: s, bytes } if *j == job && *s == stream => Some(bytes.clone()),
            _ => None,
        });
        String::from_utf8(bytes.collect::<Vec<_>>().concat()).unwrap()
    }
}

#[test]
fn jobs_run_print_exit_and_leave_files() {
    let mut bench = Bench::new();
    let started = Instant::now();
    let results = bench.run("exit", 2, |_| ()).unwrap_or_else(|e| panic!("{e}"));
    let whole = started.elapsed();
    assert_eq!(results.iter().map(|r| r.exit_code).collect::<Vec<_>>(), [Some(3), Some(3)]);
    for job in 0..2 {
        assert!(bench.output(job, Stream::Stdout).contains("hello from 6.1."), "{}", bench.output(job, Stream::Stdout));
        assert_eq!(bench.output(job, Stream::Stderr).matches("and on stderr").count(), 1);
    }
    assert_eq!(std::fs::read_to_string(bench.dir.path().join("run 0/text")).unwrap(), "from the host");
    assert_eq!(std::fs::metadata(bench.dir.path().join("run 0/big")).unwrap().len(), 2 << 20);
    assert!(bench.dir.path().join("run 1").is_dir());
    let booted = bench.events.iter().find_map(|e| if let LabEvent::Booted(d) = e { Some(*d) } else { None }).unwrap();
    let at = |wanted: &dyn Fn(&LabEvent) -> bool| bench.times[bench.events.iter().position(wanted).unwrap()];
    for (i, result) in results.iter().enumerate() {
        let whole = at(&|e| matches!(e, LabEvent::JobEnded(j, _) if *j == i)) - at(&|e| *e == LabEvent::JobStarted(i));
        let size = if i == 0 { "2 MiB" } else { "nothing" };
        println!("job {i}: ran {:.2?}, bringing {size} back {:.2?}", result.wall, whole.saturating_sub(result.wall));
    }
    println!("boot to first job {booted:.2?}, whole {whole:.2?}");
}

#[test]
fn a_panic_of_the_outer_kernel_is_told_with_its_console() {
    let error = Bench::new().run("panic", 1, |_| ()).unwrap_err();
    assert!(matches!(&error, LabError::Panic { job: Some(0), .. }), "{error}");
    assert!(error.to_string().contains("sysrq"), "{error}");
}

#[test]
fn a_cancelled_lab_ends_at_once() {
    let mut bench = Bench::new();
    assert!(matches!(bench.run("cancelled", 1, |_| ()), Err(LabError::Cancelled)));
}

#[test]
fn a_job_that_never_ends_is_a_timeout() {
    let error = Bench::new().run("forever", 1, |o| o.job_limit = Some(Duration::from_secs(3))).unwrap_err();
    assert!(matches!(error, LabError::JobTimeout { job: 0, .. }), "{error}");
}

#[test]
fn a_machine_that_does_not_come_up_is_tried_twice() {
    let mut bench = Bench::new();
    let error = bench.run("exit", 1, |o| o.boot_limit = Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, LabError::NoBoot { .. }), "{error}");
    assert!(bench.events.contains(&LabEvent::Rebooting));
}

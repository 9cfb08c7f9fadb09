//! The line discipline as a table, and ptys end to end.

use super::ldisc::{Effects, Ldisc};
use super::termios::Termios;
use super::*;
use crate::fs::devpts;
use crate::fs::file::File;
use crate::signal::signo;
use crate::task::creds::Creds;
use alloc::vec::Vec;
use hal::host::{Dest, Src};
use qlib::Errno;

fn run(t: &Termios, input: &[u8]) -> (Vec<Vec<u8>>, Effects) {
    let mut l = Ldisc::default();
    let mut fx = Effects::default();
    for b in input {
        l.receive(t, *b, &mut fx);
    }
    let mut reads = Vec::new();
    while l.available(t) > 0 {
        reads.push(l.take(t, 4096).0);
    }
    (reads, fx)
}

#[test]
fn canonical_input_table() {
    let d = Termios::default();
    let no_echo = Termios {
        lflag: d.lflag & !g::ECHO,
        ..d
    };
    let bare_kill = Termios {
        lflag: d.lflag & !g::ECHOKE,
        ..d
    };
    let prt = Termios {
        lflag: d.lflag | g::ECHOPRT,
        ..d
    };
    let utf8 = Termios {
        iflag: d.iflag | g::IUTF8,
        ..d
    };
    let igncr = Termios {
        iflag: d.iflag | g::IGNCR,
        ..d
    };
    type Case<'a> = (&'a str, Termios, &'a [u8], &'a [&'a [u8]], &'a [u8]);
    let cases: &[Case<'_>] = &[
        ("a line", d, b"ls\r", &[b"ls\n"], b"ls\r\n"),
        (
            "two lines are two reads",
            d,
            b"a\nb\n",
            &[b"a\n", b"b\n"],
            b"a\r\nb\r\n",
        ),
        ("no line yet", d, b"abc", &[], b"abc"),
        ("erase", d, b"ax\x7fb\n", &[b"ab\n"], b"ax\x08 \x08b\r\n"),
        ("erase at the start", d, b"\x7fa\n", &[b"a\n"], b"a\r\n"),
        (
            "erase a control character",
            d,
            b"\x01\x7fa\n",
            &[b"a\n"],
            b"^A\x08 \x08\x08 \x08a\r\n",
        ),
        (
            "kill",
            d,
            b"abc\x15d\n",
            &[b"d\n"],
            b"abc\x08 \x08\x08 \x08\x08 \x08d\r\n",
        ),
        (
            "kill without ECHOKE",
            bare_kill,
            b"ab\x15d\n",
            &[b"d\n"],
            b"ab^U\r\nd\r\n",
        ),
        (
            "werase",
            d,
            b"foo bar \x17x\n",
            &[b"foo x\n"],
            b"foo bar \x08 \x08\x08 \x08\x08 \x08\x08 \x08x\r\n",
        ),
        ("echoprt", prt, b"ab\x7f\x7fc\n", &[b"c\n"], b"ab\\ba/c\r\n"),
        (
            "utf-8 erase",
            utf8,
            b"\xc3\xa9\x7fx\n",
            &[b"x\n"],
            b"\xc3\xa9\x08 \x08x\r\n",
        ),
        ("eof after text", d, b"ab\x04", &[b"ab"], b"ab"),
        ("eof alone", d, b"\x04", &[b""], b""),
        ("lnext", d, b"\x16\x03\n", &[b"\x03\n"], b"^\x08^C\r\n"),
        ("reprint", d, b"ab\x12\n", &[b"ab\n"], b"ab^R\r\nab\r\n"),
        (
            "tab erase",
            d,
            b"a\t\x7fb\n",
            &[b"ab\n"],
            b"a\t\x08\x08\x08\x08\x08\x08\x08b\r\n",
        ),
        ("no echo", no_echo, b"secret\x7f\n", &[b"secre\n"], b""),
        ("igncr", igncr, b"a\r\n", &[b"a\n"], b"a\r\n"),
    ];
    for (name, t, input, reads, echo) in cases {
        let (got, fx) = run(t, input);
        let got: Vec<&[u8]> = got.iter().map(|v| &v[..]).collect();
        assert_eq!(&got[..], *reads, "{name}: reads");
        assert_eq!(
            core::str::from_utf8(&fx.echo).unwrap_or("?"),
            core::str::from_utf8(echo).unwrap_or("?"),
            "{name}: echo"
        );
    }
}

#[test]
fn signals_flush_and_echo() {
    let d = Termios::default();
    for (key, sig, shown) in [
        (3, signo::SIGINT, "^C"),
        (28, signo::SIGQUIT, "^\\"),
        (26, signo::SIGTSTP, "^Z"),
    ] {
        let (reads, fx) = run(&d, &[b'a', key, b'b', b'\n']);
        assert_eq!(fx.signals, [sig]);
        assert_eq!(reads, [b"b\n".to_vec()], "what was typed before is dropped");
        assert!(fx.flush_output);
        assert_eq!(fx.echo, alloc::format!("{shown}b\r\n").into_bytes());
    }
    let keep = Termios {
        lflag: d.lflag | g::NOFLSH,
        ..d
    };
    assert_eq!(run(&keep, b"a\x03b\n").0, [b"ab\n".to_vec()]);
    let raw = Termios {
        lflag: d.lflag & !(g::ISIG | g::ICANON),
        ..d
    };
    let (reads, fx) = run(&raw, b"a\x03");
    assert_eq!((reads, fx.signals.len()), ([b"a\x03".to_vec()].to_vec(), 0));
}

#[test]
fn flow_control_stops_and_starts() {
    let d = Termios::default();
    let mut l = Ldisc::default();
    let mut fx = Effects::default();
    l.receive(&d, 19, &mut fx);
    assert_eq!((l.stopped, fx.flow), (true, Some(true)));
    l.receive(&d, b'x', &mut fx);
    assert!(l.stopped, "without IXANY only VSTART starts");
    l.receive(&d, 17, &mut fx);
    assert_eq!((l.stopped, fx.flow), (false, Some(false)));
}

#[test]
fn a_full_line_still_takes_its_newline() {
    let d = Termios::default();
    let mut l = Ldisc::default();
    let mut fx = Effects::default();
    for _ in 0..5000 {
        assert!(l.room(&d) > 0);
        l.receive(&d, b'x', &mut fx);
    }
    l.receive(&d, b'\n', &mut fx);
    let (line, ended) = l.take(&d, 10_000);
    assert!(ended);
    assert_eq!(line.len(), 4096);
}

#[test]
fn typed_ahead_input_survives_a_change_of_mode() {
    let d = Termios::default();
    let raw = Termios {
        lflag: d.lflag & !g::ICANON,
        ..d
    };
    let mut l = Ldisc::default();
    let mut fx = Effects::default();
    for b in b"abc" {
        l.receive(&d, *b, &mut fx);
    }
    assert_eq!(l.available(&d), 0);
    l.settings_changed(&d, &raw);
    assert_eq!(l.take(&raw, 2).0, b"ab");
    l.settings_changed(&raw, &d);
    assert_eq!(l.take(&d, 10).0, b"c");
}

fn pair() -> (Arc<File>, Arc<File>, Arc<Tty>) {
    let creds = Creds::default();
    let ops = open_ptmx(&creds).unwrap();
    let master = File::new(ops, None, g::O_RDWR | g::O_NONBLOCK);
    let tty = master.downcast::<master::MasterOps>().unwrap().tty.clone();
    assert_eq!(
        open_slave(&tty, g::O_NOCTTY, &creds).err(),
        Some(Errno::EIO),
        "locked"
    );
    tty.inner.lock().locked = false;
    let slave = File::new(
        open_slave(&tty, g::O_NOCTTY, &creds).unwrap(),
        None,
        g::O_RDWR | g::O_NONBLOCK,
    );
    (master, slave, tty)
}

fn read(f: &File) -> Result<Vec<u8>, Errno> {
    let mut buf = [0; 512];
    let n = f.ops().read(f, &mut Dest::kernel(&mut buf), 0)?;
    Ok(buf[..n].to_vec())
}

fn write(f: &File, bytes: &[u8]) -> Result<usize, Errno> {
    f.ops().write(f, &mut Src::kernel(bytes), 0)
}

#[test]
fn a_pty_moves_lines_and_output() {
    let (master, slave, tty) = pair();
    assert!(devpts::get(tty.index).is_some());
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert_eq!(write(&master, b"hello\rwor"), Ok(9));
    assert!(slave.ops().poll(&slave).contains(Events::IN));
    assert_eq!(read(&slave).unwrap(), b"hello\n");
    assert_eq!(read(&slave), Err(Errno::EAGAIN));
    assert_eq!(read(&master).unwrap(), b"hello\r\nwor");
    assert_eq!(write(&slave, b"out\n"), Ok(4));
    assert_eq!(read(&master).unwrap(), b"out\r\n");
    assert_eq!(
        slave.describe(),
        alloc::format!("/dev/pts/{}", tty.index).into_bytes()
    );
}

#[test]
fn closing_either_side_is_seen_by_the_other() {
    let (master, slave, tty) = pair();
    write(&slave, b"bye").unwrap();
    drop(slave);
    assert!(master.ops().poll(&master).contains(Events::HUP));
    assert_eq!(read(&master).unwrap(), b"bye");
    assert_eq!(read(&master), Err(Errno::EIO));
    let again = open_slave(&tty, g::O_NOCTTY, &Creds::default()).unwrap();
    assert_eq!(read(&master), Err(Errno::EAGAIN));
    let slave = File::new(again, None, g::O_RDWR);
    drop(master);
    assert!(slave.ops().poll(&slave).contains(Events::HUP | Events::IN));
    assert_eq!(read(&slave).unwrap(), b"");
    assert_eq!(write(&slave, b"x"), Err(Errno::EIO));
    assert!(devpts::get(tty.index).is_none());
    assert_eq!(
        open_slave(&tty, g::O_NOCTTY, &Creds::default()).err(),
        Some(Errno::EIO)
    );
}

#[test]
fn packet_mode_prefixes_data_and_tells_flow() {
    let (master, slave, tty) = pair();
    tty.inner.lock().packet = true;
    write(&slave, b"a").unwrap();
    assert_eq!(read(&master).unwrap(), b"\0a");
    write(&master, b"\x13").unwrap();
    assert_eq!(read(&master).unwrap(), [g::TIOCPKT_STOP as u8]);
    assert_eq!(write(&slave, b"b"), Err(Errno::EAGAIN), "output is stopped");
    write(&master, b"\x11").unwrap();
    assert_eq!(read(&master).unwrap(), [g::TIOCPKT_START as u8]);
    assert_eq!(write(&slave, b"b"), Ok(1));
}

#[test]
fn raw_reads_follow_vmin_and_vtime() {
    let (master, slave, tty) = pair();
    slave.set_flags(g::O_NONBLOCK, 0);
    {
        let mut i = tty.inner.lock();
        let old = i.termios;
        let mut new = old;
        new.lflag &= !(g::ICANON | g::ECHO);
        new.cc[g::VMIN as usize] = 0;
        new.cc[g::VTIME as usize] = 1;
        i.termios = new;
        i.ldisc.settings_changed(&old, &new);
    }
    let start = hal::clock::monotonic_ns();
    assert_eq!(read(&slave).unwrap(), b"", "VTIME ends the read");
    assert!(hal::clock::monotonic_ns() - start >= 90_000_000);
    {
        let mut i = tty.inner.lock();
        i.termios.cc[g::VMIN as usize] = 3;
        i.termios.cc[g::VTIME as usize] = 0;
    }
    write(&master, b"ab").unwrap();
    let typist = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        write(&master, b"c").unwrap();
        master
    });
    assert_eq!(read(&slave).unwrap(), b"abc");
    drop(typist.join().unwrap());
}

#[test]
fn a_writer_waits_for_the_masters_reader() {
    let (master, slave, _tty) = pair();
    slave.set_flags(g::O_NONBLOCK, 0);
    let writer = std::thread::spawn(move || write(&slave, &[b'x'; 200_000]));
    let mut got = 0;
    while got < 200_000 {
        match read(&master) {
            Ok(b) => got += b.len(),
            Err(Errno::EAGAIN) => std::thread::yield_now(),
            Err(e) => panic!("{e}"),
        }
    }
    assert_eq!(writer.join().unwrap(), Ok(200_000));
}

package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// watch sees whether the processes that fuzz get on. Go's fuzzer counts the executions of each in
// a file that it shares with that process, beginning with a 64-bit number. Where there is no such file,
// all are taken to get on.
type watch struct {
	fuzzer  int    // process that has started them
	folder  string // with the files
	workers map[int]*worker
	gone    time.Time // when one was last seen to be missing
}

// worker is a process that fuzzes.
type worker struct {
	file  string
	count uint64
	moved time.Time // when the count was last seen to change
	quit  bool      // it was told to
}

// look reads the counts.
func (w *watch) look(now time.Time) {
	found := map[int]*worker{}
	for _, pid := range children(w.fuzzer) {
		known := w.workers[pid]
		if known == nil {
			if known = (&worker{file: sharedFile(pid, w.folder), moved: now}); known.file == "" {
				continue
			}
		}
		if n, ok := count(known.file); ok && n != known.count {
			known.count, known.moved = n, now
		}
		found[pid] = known
	}
	for pid := range w.workers {
		if found[pid] == nil {
			w.gone = now
		}
	}
	w.workers = found
}

// movedSince tells whether all have begun another execution. Of one that has died the fuzzer
// still has to store the input.
func (w *watch) movedSince(then, now time.Time) bool {
	if now.Sub(w.gone) < graceTime {
		return false
	}
	for _, k := range w.workers {
		if !k.moved.After(then) {
			return false
		}
	}
	return true
}

// quit ends those that have not got on for some time. One that dies of this signal is to the
// fuzzer one that its input has killed, and the fuzzer stores that input.
func (w *watch) quit(now time.Time, stall time.Duration) {
	for pid, k := range w.workers {
		if now.Sub(k.moved) > stall && !k.quit {
			_ = syscall.Kill(pid, syscall.SIGQUIT) // unless it has gone
			k.quit = true
		}
	}
}

func count(file string) (n uint64, ok bool) {
	f, err := os.Open(file)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	var b [8]byte
	_, err = f.ReadAt(b[:], 0)
	return binary.NativeEndian.Uint64(b[:]), err == nil
}

// children are the processes that a process has started.
func children(pid int) (pids []int) {
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		return nil
	}
	for _, name := range lists {
		list, err := os.ReadFile(name)
		if err != nil { // the thread has gone
			continue
		}
		for _, field := range strings.Fields(string(list)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// sharedFile is the file that a process shares with the fuzzer; "" if it has none.
func sharedFile(pid int, folder string) string {
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return ""
	}
	for _, fd := range fds {
		if name, err := os.Readlink(fd); err == nil && filepath.Dir(name) == folder && strings.HasPrefix(filepath.Base(name), "fuzz-") {
			return name
		}
	}
	return ""
}

package fuzz

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"vfiouser/dma"
)

// journal takes what the engine and the device log: panics that were contained, and why
// sessions end.
type journal struct {
	mu      sync.Mutex
	defects []string
	faults  int     // panics because client memory has gone
	causes  []error // of sessions that ended, but for those whose client hung up
}

// take gives what was noted, and forgets it.
func (j *journal) take() (defects []string, faults int, causes []error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	defects, faults, causes = j.defects, j.faults, j.causes
	j.defects, j.faults, j.causes = nil, 0, nil
	return defects, faults, causes
}

// put gives defects back that were taken.
func (j *journal) put(defects []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.defects = append(defects, j.defects...)
}

// Enabled leaves out what is told of every session.
func (j *journal) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// Handle takes a record down if it tells of a panic or of the end of a session.
func (j *journal) Handle(_ context.Context, r slog.Record) error {
	var panicked, cause any
	found := false
	text := strings.Builder{}
	text.WriteString(r.Message)
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "panic":
			panicked, found = a.Value.Any(), true
		case "cause":
			cause = a.Value.Any()
		}
		fmt.Fprintf(&text, "\n%s: %v", a.Key, a.Value)
		return true
	})
	j.mu.Lock()
	defer j.mu.Unlock()
	_, fault := dma.IsFault(panicked)
	switch err, ended := cause.(error); {
	case found && fault:
		j.faults++
		if j.faults == 1 {
			j.defects = append(j.defects, faultPrefix+text.String())
		}
	case found, r.Level >= slog.LevelError:
		j.defects = append(j.defects, text.String())
	case ended && r.Message == "session ends":
		j.causes = append(j.causes, err)
	}
	return nil
}

// faultPrefix marks a defect that is none if the client has truncated its memory.
const faultPrefix = "memory that is not there: "

// WithAttrs leaves them out: there is one device at a time.
func (j *journal) WithAttrs([]slog.Attr) slog.Handler { return j }

// WithGroup is likewise.
func (j *journal) WithGroup(string) slog.Handler { return j }

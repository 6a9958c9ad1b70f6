package nvme

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

type keptForTest struct{ A, B int }

func TestStateIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "state")
	var d stateDir
	noError(t, d.open(path))
	var v keptForTest
	if found, err := d.recall("x", &v); found || err != nil {
		t.Fatalf("before anything was kept: %v, %v", found, err)
	}
	noError(t, d.keep("x", keptForTest{1, 2}))
	noError(t, d.keep("x", keptForTest{3, 4}))
	var other stateDir
	if err := other.open(path); err == nil || !strings.Contains(err.Error(), "another subsystem's") {
		t.Errorf("opened twice: %v", err)
	}
	noError(t, d.close())
	noError(t, d.close())
	noError(t, other.open(path))
	defer other.close()
	if found, err := other.recall("x", &v); !found || err != nil || v != (keptForTest{3, 4}) {
		t.Errorf("%v, %v, %+v", found, err, v)
	}
	if left, _ := filepath.Glob(filepath.Join(path, "*.new")); left != nil {
		t.Errorf("left over: %v", left)
	}
}

// Without a directory nothing is kept, and nothing fails.
func TestNothingIsKeptWithoutADirectory(t *testing.T) {
	var d stateDir
	noError(t, d.keep("x", keptForTest{1, 2}))
	if found, err := d.recall("x", new(keptForTest)); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
	noError(t, d.close())
}

func TestDamagedStateIsRefused(t *testing.T) {
	const whole = `{"Version":1,"Content":{"A":1,"B":2}}`
	for _, c := range []struct{ name, text string }{
		{"empty", ""},
		{"cut", `{"Version":1,"Content":{"A":1,`},
		{"not JSON", "hello"},
		{"another version", `{"Version":2,"Content":{"A":1,"B":2}}`},
		{"no version", `{"Content":{"A":1,"B":2}}`},
		{"unknown field", `{"Version":1,"Content":{"A":1,"B":2},"C":3}`},
		{"unknown field inside", `{"Version":1,"Content":{"A":1,"B":2,"C":3}}`},
		{"another type", `{"Version":1,"Content":{"A":"1"}}`},
		{"no content", `{"Version":1}`},
		{"something behind", `{"Version":1,"Content":{"A":1,"B":2}} {}`},
		{"too large", whole + strings.Repeat(" ", maxRecordSize+1-len(whole))},
	} {
		var d stateDir
		path := t.TempDir()
		noError(t, d.open(path))
		noError(t, os.WriteFile(filepath.Join(path, "x.json"), []byte(c.text), 0o600))
		if found, err := d.recall("x", new(keptForTest)); found || err == nil || !strings.Contains(err.Error(), "x.json cannot be used") {
			t.Errorf("%s: %v, %v", c.name, found, err)
		}
		noError(t, d.close())
	}
}

// What somebody has put in the place of a file is neither followed nor waited for.
func TestStateFilesAreFiles(t *testing.T) {
	var d stateDir
	path := t.TempDir()
	noError(t, d.open(path))
	defer d.close()
	noError(t, os.Symlink("/etc/passwd", filepath.Join(path, "link.json")))
	noError(t, syscall.Mkfifo(filepath.Join(path, "fifo.json"), 0o600))
	noError(t, os.Mkdir(filepath.Join(path, "dir.json"), 0o700))
	for _, subject := range []string{"link", "fifo", "dir"} {
		if found, err := d.recall(subject, new(keptForTest)); found || err == nil {
			t.Errorf("%s: %v, %v", subject, found, err)
		}
	}
	if err := d.open(filepath.Join(path, "link.json")); err == nil {
		t.Error("a file is a directory")
	}
}

func TestSerialNumberThatWasMadeUpIsKept(t *testing.T) {
	dir := t.TempDir()
	var serials []string
	for range 2 {
		s, err := NewSubsystem(SubsystemConfig{StateDir: dir})
		noError(t, err)
		serial, _, _ := s.names()
		serials = append(serials, serial)
		noError(t, s.Close())
	}
	if serials[0] != serials[1] || serials[0] == "" {
		t.Errorf("%q", serials)
	}
	noError(t, os.WriteFile(filepath.Join(dir, "serial.json"), []byte(`{"Version":1,"Content":{"Serial":""}}`), 0o600))
	if _, err := NewSubsystem(SubsystemConfig{StateDir: dir}); err == nil {
		t.Error("an impossible serial number")
	}
}

// What cannot be written is logged: no host could be told.
func TestFailureToKeepStateIsLogged(t *testing.T) {
	dir := t.TempDir()
	var text strings.Builder
	s, err := NewSubsystem(SubsystemConfig{StateDir: dir, Logger: slog.New(slog.NewTextHandler(&text, nil))})
	noError(t, err)
	defer s.Close()
	noError(t, os.Mkdir(filepath.Join(dir, "x.json.new"), 0o700))
	s.keep("x", keptForTest{})
	if !strings.Contains(text.String(), "state was not written") {
		t.Errorf("logged %q", text.String())
	}
}

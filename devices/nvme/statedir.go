package nvme

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// stateDir keeps what outlives the process: a file of JSON for each subject. A file is
// replaced as a whole, so after a crash it is the old one or the new one. The zero value
// keeps nothing. The caller sees to it that a subject is written by one at a time.
type stateDir struct {
	path string
	lock *os.File // one process at a time
}

const (
	stateSuffix   = ".json"
	maxRecordSize = 16 << 20 // bytes of a file
	recordVersion = 1
)

// record is the content of a file.
type record struct {
	Version int
	Content json.RawMessage
}

// open makes the directory, if it does not exist, and takes it.
func (d *stateDir) open(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return fmt.Errorf("nvme: state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("nvme: state directory: %w", err)
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return fmt.Errorf("nvme: state directory %s is another subsystem's", path)
		}
		return fmt.Errorf("nvme: state directory: %w", err)
	}
	d.path, d.lock = path, lock
	return nil
}

func (d *stateDir) close() error {
	if d.lock == nil {
		return nil
	}
	err := d.lock.Close()
	d.path, d.lock = "", nil
	return err
}

// keep writes a subject. When it returns without an error that is on the disk.
func (d *stateDir) keep(subject string, v any) error {
	if d.path == "" {
		return nil
	}
	content, err := json.Marshal(v)
	if err != nil {
		return err
	}
	text, err := json.Marshal(record{recordVersion, content})
	if err != nil {
		return err
	}
	name := filepath.Join(d.path, subject+stateSuffix)
	if err := writeDurably(name+".new", append(text, '\n')); err != nil {
		return fmt.Errorf("nvme: state: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return fmt.Errorf("nvme: state: %w", err)
	}
	return syncDir(d.path)
}

func writeDurably(name string, p []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("nvme: state: %w", err)
	}
	return errors.Join(d.Sync(), d.Close())
}

// recall reads a subject into v and says whether it was ever kept. A file that is not what
// keep writes is an error; whether the values are possible is for the caller to check.
func (d *stateDir) recall(subject string, v any) (found bool, err error) {
	if d.path == "" {
		return false, nil
	}
	name := filepath.Join(d.path, subject+stateSuffix)
	text, err := readBounded(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	var r record
	if err == nil {
		err = decodeStrictly(text, &r)
	}
	if err == nil && r.Version != recordVersion {
		err = fmt.Errorf("version %d, not %d", r.Version, recordVersion)
	}
	if err == nil {
		err = decodeStrictly(r.Content, v)
	}
	if err != nil {
		return false, fmt.Errorf("nvme: state in %s cannot be used: %w", name, err)
	}
	return true, nil
}

func readBounded(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxRecordSize+1))
	if len(text) > maxRecordSize {
		err = fmt.Errorf("more than %d bytes", maxRecordSize)
	}
	return text, err
}

func decodeStrictly(text []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the value")
	}
	return nil
}

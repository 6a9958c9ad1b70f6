package block

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	volumeSuffix = ".volume"
	// draftSuffix has what is not complete: its process ended while it made it.
	draftSuffix = ".volume-draft"
)

// directory keeps each volume in a file.
type directory struct {
	path string // absolute
	lock *os.File
}

// openDirectory finds the volumes in a directory, which it locks.
func openDirectory(p *pool, path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d := &directory{path: path}
	if d.lock, err = os.OpenFile(path, unix.O_DIRECTORY, 0); err != nil {
		return because(err, "cannot open the directory: %v", err)
	}
	p.store = d
	// File systems without locks go without.
	if err = unix.Flock(int(d.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == unix.EWOULDBLOCK {
		err = because(ErrInUse, "another pool (maybe of another process) is in this directory")
	} else {
		err = d.scan(p)
	}
	if err != nil {
		_ = d.lock.Close()
	}
	return err
}

// scan finds the volumes. What goes by other names is left alone.
func (d *directory) scan(p *pool) error {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, draft := strings.CutSuffix(e.Name(), draftSuffix)
		if draft && checkName(name) == nil {
			if err := os.Remove(filepath.Join(d.path, e.Name())); err != nil {
				return because(err, "cannot remove what was left of an incomplete volume: %v", err)
			}
			continue
		}
		name, found := strings.CutSuffix(e.Name(), volumeSuffix)
		if !found || checkName(name) != nil {
			continue
		}
		v := &volume{pool: p, name: name}
		// One that is damaged holds its name, and Open says what is wrong.
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			v.size = info.Size()
		}
		p.volumes[name] = v
	}
	return nil
}

func (d *directory) place(v *volume, suffix string) string {
	return filepath.Join(d.path, v.name+suffix)
}

// create makes a file that is complete, durably, from the moment on that it has its name.
func (d *directory) create(v *volume) (_ Backend, err error) {
	draft, path := d.place(v, draftSuffix), d.place(v, volumeSuffix)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("block: volume %s: %s: %w", v.name, path, fs.ErrExist)
	}
	// One that is there was left behind: drafts of this directory are made here only.
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, because(err, "cannot remove what was left of an incomplete volume: %v", err)
	}
	f, err := os.OpenFile(draft, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(draft)
		}
	}()
	err = f.Truncate(v.size)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(draft, path); err != nil {
		return nil, err
	}
	if err = d.lock.Sync(); err == nil {
		var b Backend
		if b, err = d.open(v); err == nil {
			return b, nil
		}
	}
	_ = os.Remove(path)
	return nil, err
}

func (d *directory) open(v *volume) (Backend, error) {
	path := d.place(v, volumeSuffix)
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &OpenError{Spec: "file:" + path, Err: because(ErrSpec, "is no regular file, so it is none of the pool's")}
	}
	b, err := File(path, FileOptions{})
	if err != nil {
		return nil, err
	}
	b.(*file).volume = v
	return b, nil
}

// remove takes a file away that nobody uses: the lock on the directory keeps other pools out, but
// not who opens the file itself.
func (d *directory) remove(v *volume) error {
	path := d.place(v, volumeSuffix)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.lock.Sync()
	case err != nil:
		return err
	case info.Mode().IsRegular():
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("block: volume %s: cannot open %s: %w", v.name, path, err)
		}
		o := openedFile{path: path, fd: fd, direct: -1}
		defer func() { _ = o.release() }()
		if err := o.lock(false, lockPatience); err != nil {
			return fmt.Errorf("block: volume %s: %w", v.name, err)
		}
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return d.lock.Sync()
}

func (d *directory) close() error { return d.lock.Close() }

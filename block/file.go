package block

import (
	"errors"
	"os"
)

// ErrInUse is found by errors.Is where a file is already used by somebody else.
var ErrInUse = errors.New("in use")

// FileOptions are the choices File offers; the zero value is the default.
type FileOptions struct {
	// ReadOnly opens the file for reading only.
	ReadOnly bool
	// Workers bounds the goroutines that do the work, 0 means 32.
	Workers int
}

type file struct {
	f    *os.File
	size int64
	ro   bool
}

// File returns a backend on a regular file or a block device.
func File(path string, opt FileOptions) (Backend, error) {
	mode := os.O_RDWR
	if opt.ReadOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, &OpenError{Spec: "file:" + path, Err: err}
	}
	st, err := f.Stat()
	if err == nil {
		err = checkSize(st.Size())
	}
	if err != nil {
		f.Close()
		return nil, &OpenError{Spec: "file:" + path, Err: err}
	}
	return &file{f: f, size: st.Size(), ro: opt.ReadOnly}, nil
}

func (f *file) Size() int64 { return f.size }

func (f *file) Info() Info {
	return Info{Kind: "file", Async: true, ReadOnly: f.ro, VolatileCache: true, CanDiscard: true}
}

func (f *file) Submit(r *Request) (bool, error) {
	if err := r.check(f.size, f.ro); err != nil {
		return true, err
	}
	var err error
	off := r.Offset
	switch r.Op {
	case Read:
		for _, b := range r.Buffers {
			if _, err = f.f.ReadAt(b, off); err != nil {
				break
			}
			off += int64(len(b))
		}
	case Write:
		for _, b := range r.Buffers {
			if _, err = f.f.WriteAt(b, off); err != nil {
				break
			}
			off += int64(len(b))
		}
	case Flush:
		err = f.f.Sync()
	case WriteZeroes:
		_, err = f.f.WriteAt(make([]byte, r.Length), off)
	}
	return true, err
}

func (f *file) Close() error { return f.f.Close() }

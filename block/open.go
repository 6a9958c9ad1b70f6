package block

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
)

// ErrSpec is found by errors.Is where the text given to Open, or a size, is
// itself wrong, as opposed to what it names.
var ErrSpec = errors.New("invalid backend")

// OpenError says why a backend could not be made and what would be right.
type OpenError struct {
	Spec string // what was to be opened, for example "file:/srv/disk.img"
	Err  error
}

// Error names the backend and the reason.
func (e *OpenError) Error() string { return fmt.Sprintf("block: %s: %v", e.Spec, e.Err) }

// Unwrap returns the reason, which carries ErrSpec, ErrInUse or a syscall.Errno.
func (e *OpenError) Unwrap() error { return e.Err }

// reason is a sentence for people with a cause for programs.
type reason struct {
	text  string
	cause error
}

func (r *reason) Error() string { return r.text }
func (r *reason) Unwrap() error { return r.cause }

func because(cause error, format string, args ...any) error {
	return &reason{text: fmt.Sprintf(format, args...), cause: cause}
}

// Open makes a backend out of a text:
//
//	mem:SIZE    anonymous memory, gone when closed
//	file:PATH   a regular file or a block device; behind the path can stand ,direct (past the page
//	            cache) and ,engine=uring or ,engine=threads, see FileOptions
//	null:SIZE   nothing at all
//	nbd:URI     an export of an NBD server, see NBD; "nbd:" may be left out in front of a URI
//
// In front of any of them can stand filters, KIND[:SETTINGS] with a comma behind each, for
// example delay:2ms,error:read:1%,mem:1G; see Wrap.
//
// SIZE is a number of bytes with an optional K, M, G or T (powers of 1,024),
// and a multiple of 512. Errors are *OpenError.
func Open(spec string) (Backend, error) { return OpenWith(spec, OpenOptions{}) }

// OpenOptions are the choices OpenWith offers; the zero value is the default.
type OpenOptions struct {
	// Unclaimed is for storage that another server still uses: a backend that is a Claimer has
	// to be claimed before it is of use.
	Unclaimed bool
	// Logger is for the filter "log" (nil: slog.Default()) and for an NBD server's lost
	// connections (nil: nobody is told).
	Logger *slog.Logger
}

// Check tells what is wrong with a text that is meant for Open. It looks at the text only: what
// that names need not be there. Errors are *OpenError, with ErrSpec.
func Check(spec string) error {
	_, err := readSpec(spec)
	return err
}

// OpenWith is Open with options.
func OpenWith(spec string, opt OpenOptions) (Backend, error) {
	open, err := readSpec(spec)
	if err != nil {
		return nil, err
	}
	return open(opt)
}

// opener makes the backend that a text is about.
type opener func(OpenOptions) (Backend, error)

// readSpec understands a text. Errors are *OpenError.
func readSpec(spec string) (opener, error) {
	if filter, rest, found := strings.Cut(spec, ","); found {
		if name, _, _ := strings.Cut(filter, ":"); findFilter(name) != nil || name == "volatile" {
			return readFiltered(filter, rest)
		}
	}
	kind, arg, found := strings.Cut(spec, ":")
	if !found {
		return nil, &OpenError{Spec: fmt.Sprintf("%q", spec),
			Err: because(ErrSpec, "no kind of backend; write mem:SIZE, file:PATH, nbd:URI or null:SIZE, for example mem:1G")}
	}
	switch kind {
	case "mem", "null":
		size, err := parseSize(arg)
		if err != nil {
			return nil, &OpenError{Spec: spec, Err: err}
		}
		if kind == "mem" {
			return func(OpenOptions) (Backend, error) { return Memory(size) }, nil
		}
		return func(OpenOptions) (Backend, error) { return Null(size) }, nil
	case "file":
		path, file, err := readFileSettings(arg)
		if err != nil {
			return nil, &OpenError{Spec: spec, Err: err}
		}
		return func(opt OpenOptions) (Backend, error) {
			file.Unclaimed = opt.Unclaimed
			return File(path, file)
		}, nil
	case "nbd", "nbd+unix", "nbd+tcp", "nbds", "nbds+unix", "nbds+tcp":
		uri := spec
		if kind == "nbd" && !strings.HasPrefix(arg, "//") {
			uri = arg
		}
		if _, err := parseNBD(uri, &NBDOptions{}); err != nil {
			return nil, &OpenError{Spec: uri, Err: err}
		}
		return func(opt OpenOptions) (Backend, error) { return NBD(uri, NBDOptions{Logger: opt.Logger}) }, nil
	}
	if kind == "volatile" {
		return nil, &OpenError{Spec: spec, Err: because(ErrSpec, "a filter without a backend; write for example volatile,file:disk.img")}
	}
	if f := findFilter(kind); f != nil {
		return nil, &OpenError{Spec: spec, Err: because(ErrSpec, "a filter without a backend; write %s,BACKEND, for example %s,mem:1G", f.usage, spec)}
	}
	return nil, &OpenError{Spec: spec,
		Err: because(ErrSpec, "unknown kind of backend %q; known are mem:SIZE, file:PATH, nbd:URI and null:SIZE", kind)}
}

// readFileSettings takes what can stand behind a path away from it. Other commas are the path's.
func readFileSettings(arg string) (path string, opt FileOptions, err error) {
	for {
		at := strings.LastIndexByte(arg, ',')
		setting := arg[at+1:]
		engine, isEngine := strings.CutPrefix(setting, "engine=")
		switch {
		case at >= 0 && setting == "direct":
			opt.Direct = true
		case at >= 0 && isEngine:
			switch engine {
			case "auto":
				opt.Engine = EngineAuto
			case "uring":
				opt.Engine = EngineURing
			case "threads":
				opt.Engine = EngineThreads
			default:
				return "", opt, because(ErrSpec, "unknown engine %q; known are auto, uring and threads", engine)
			}
		case arg == "":
			return "", opt, errNoPath
		default:
			return arg, opt, nil
		}
		arg = arg[:at]
	}
}

// readFiltered understands a filter and what is behind it.
func readFiltered(filter, rest string) (opener, error) {
	var wrap func(Backend, OpenOptions) (Backend, error)
	name, settings, _ := strings.Cut(filter, ":")
	if name == "volatile" {
		opt, err := readVolatile(settings)
		if err != nil {
			return nil, err
		}
		wrap = func(b Backend, _ OpenOptions) (Backend, error) { return NewVolatile(b, opt) }
	} else {
		if _, _, err := findFilter(name).read(new(Filter), settings); err != nil {
			return nil, err
		}
		wrap = func(b Backend, opt OpenOptions) (Backend, error) {
			return Wrap(b, filter, FilterOptions{Logger: opt.Logger})
		}
	}
	open, err := readSpec(rest)
	if err != nil {
		return nil, err
	}
	return func(opt OpenOptions) (Backend, error) {
		b, err := open(opt)
		if err != nil {
			return nil, err
		}
		f, err := wrap(b, opt)
		if err != nil {
			_ = b.Close()
			return nil, err
		}
		return f, nil
	}, nil
}

// parseSize reads a number of bytes with an optional binary suffix.
func parseSize(s string) (int64, error) {
	const usage = "write a whole number of bytes, or one with K, M, G or T (powers of 1,024), for example 1G"
	if s == "" {
		return 0, because(ErrSpec, "no size; %s", usage)
	}
	digits := 0
	for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
		digits++
	}
	if digits == 0 {
		return 0, because(ErrSpec, "bad size %q: it does not begin with a digit; %s", s, usage)
	}
	var shift uint
	switch suffix := s[digits:]; strings.ToUpper(suffix) {
	case "":
	case "K":
		shift = 10
	case "M":
		shift = 20
	case "G":
		shift = 30
	case "T":
		shift = 40
	default:
		return 0, because(ErrSpec, "bad size %q: unknown suffix %q; %s", s, suffix, usage)
	}
	var n int64
	for _, d := range []byte(s[:digits]) {
		v := int64(d - '0')
		if n > (math.MaxInt64-v)/10 {
			return 0, because(ErrSpec, "bad size %q: more than 8E", s)
		}
		n = n*10 + v
	}
	if n > math.MaxInt64>>shift {
		return 0, because(ErrSpec, "bad size %q: more than 8E", s)
	}
	n <<= shift
	if err := checkSize(n); err != nil {
		return 0, err
	}
	return n, nil
}

// checkSize says whether a backend can have this many bytes.
func checkSize(n int64) error {
	switch {
	case n <= 0:
		return because(ErrSpec, "bad size %d: it must be at least %d bytes", n, SectorSize)
	case n%SectorSize != 0:
		return because(ErrSpec, "bad size %d: not a multiple of %d; %d would be", n, SectorSize, (n/SectorSize+1)*SectorSize)
	}
	return nil
}

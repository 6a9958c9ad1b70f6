package client

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Memory is memory to share with a device: a sealed memfd (it can neither shrink nor grow, so a server that maps it
// cannot be made to fault), mapped into this process.
type Memory struct {
	bytes []byte

	mu     sync.Mutex
	fd     int
	users  int // devices that may still be asked for it by message
	closed bool
	free   []span // what Alloc may hand out
}

type memoryOptions struct {
	pageSize uint64
	flags    int
	populate bool
}

// MemoryOption changes how memory is made.
type MemoryOption func(*memoryOptions)

// WithHugepages takes 2 MiB pages, of which the system must have free ones (vm.nr_hugepages).
func WithHugepages() MemoryOption {
	return func(o *memoryOptions) {
		o.pageSize = 2 << 20
		o.flags |= unix.MFD_HUGETLB | unix.MFD_HUGE_2MB
	}
}

// WithPopulate has the memory allocated at once and not when it is first touched.
func WithPopulate() MemoryOption { return func(o *memoryOptions) { o.populate = true } }

// NewMemory makes size bytes of zeroed memory, rounded up to whole pages.
func NewMemory(size uint64, opts ...MemoryOption) (*Memory, error) {
	o := memoryOptions{pageSize: uint64(os.Getpagesize())}
	for _, opt := range opts {
		opt(&o)
	}
	if size == 0 || size > 1<<62 {
		return nil, invalid("memory of %d bytes", size)
	}
	size = (size + o.pageSize - 1) &^ (o.pageSize - 1)
	fd, err := unix.MemfdCreate("vfiouser", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|o.flags)
	if err != nil {
		return nil, fmt.Errorf("client: memfd of %d bytes: %w", size, err)
	}
	m := &Memory{fd: fd}
	if err := m.open(size, o); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("client: memory of %d bytes: %w", size, err)
	}
	return m, nil
}

func (m *Memory) open(size uint64, o memoryOptions) error {
	if err := unix.Ftruncate(m.fd, int64(size)); err != nil {
		return os.NewSyscallError("ftruncate", err)
	}
	if _, err := unix.FcntlInt(uintptr(m.fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	b, err := mapShared(m.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil {
		if errors.Is(err, unix.ENOMEM) && o.flags&unix.MFD_HUGETLB != 0 {
			err = fmt.Errorf("%w (are there free hugepages? see vm.nr_hugepages)", err)
		}
		return err
	}
	if o.populate {
		if err := populate(b); err != nil {
			return errors.Join(err, unmap(b))
		}
	}
	m.bytes, m.free = b, []span{{0, size}}
	return nil
}

// Bytes is the memory. It may change at any time once it is mapped to a device, and must not be used after Close.
func (m *Memory) Bytes() []byte { return m.bytes }

// Size is the size in bytes.
func (m *Memory) Size() uint64 { return uint64(len(m.bytes)) }

// FD is the descriptor, which stays m's; -1 after Close.
func (m *Memory) FD() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.fd
}

// At describes all of the memory at the address iova of a device, readable and writable: see Device.MapDMA.
func (m *Memory) At(iova uint64) Mapping {
	return Mapping{IOVA: iova, Size: m.Size(), FD: m.FD(), Local: m.bytes, memory: m}
}

// Close gives the memory up. The pages themselves go when the last device that they are mapped to has let go of them.
// Closing again does nothing.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	err := unix.Close(m.fd)
	m.fd = -1
	if m.users == 0 {
		err = errors.Join(err, unmap(m.bytes))
	}
	return err
}

// retain keeps the mapping for a device. With again one has it already.
func (m *Memory) retain(again bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed && !again {
		return fmt.Errorf("client: memory: %w", ErrClosed)
	}
	m.users++
	return nil
}

func (m *Memory) release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users--
	if m.closed && m.users == 0 {
		_ = unmap(m.bytes)
	}
}

// populate has the kernel allocate every page. (An error beats the SIGBUS that a full tmpfs gives later.)
func populate(b []byte) error {
	err := unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	return os.NewSyscallError("madvise", err)
}

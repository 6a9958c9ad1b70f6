package card

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"syscall"

	"vfiouser/engine"
	"vfiouser/irq"
	"vfiouser/pci"
)

// Vendor and DeviceID are the card's identity.
const (
	Vendor   = 0x1b36
	DeviceID = 0x7ca2
	Class    = 0xff0000 // of no class that a driver would take
)

// The card's BARs.
const (
	RegistersBAR = 0 // memory, 32 bits
	PortsBAR     = 1 // I/O; bytes that keep what is written
	MemoryBAR    = 2 // memory, 64 bits, prefetchable; bytes that keep what is written
	TableBAR     = 4 // memory, 32 bits: MSI-X table and pending bits, if there is MSI-X

	RegistersSize = 4096
	PortsSize     = 64
	MemorySize    = 16 << 10
	TableSize     = 4096
	PBAOffset     = 2048
)

// Vectors is how many MSI-X vectors the card has, if it has any: vector CopyVector is
// triggered when a copy ends.
const (
	Vectors    = 4
	CopyVector = 1
)

// Registers, by offset in RegistersBAR; little-endian, 4 bytes but where 8 are said.
const (
	RegID      = 0x00 // read: ID
	RegLog     = 0x08 // write, any size: appended to Writes; read: their number
	RegSource  = 0x10 // 8 bytes: guest address to copy from
	RegTarget  = 0x18 // 8 bytes: guest address to copy to
	RegLength  = 0x20 // bytes to copy
	RegGo      = 0x24 // write: begin to copy
	RegStatus  = 0x28 // read: Status*
	RegLine    = 0x2c // write: 1 raises the interrupt line, 0 lowers it
	RegVector  = 0x30 // write: triggers the MSI-X vector of that number
	RegChurn   = 0x34 // write: 1 begins to read guest memory at RegSource again and again, 0 ends it
	RegOverlap = 0x38 // read: how many accesses were served while such a read was under way
	ID         = 0x61636676
)

// What RegStatus tells.
const (
	StatusIdle = iota
	StatusBusy
	StatusDone
	StatusFailed // see CopyError
)

// Config is what a card has beside its registers.
type Config struct {
	MSIX bool
}

// Write is a write to RegLog.
type Write struct {
	Value uint64
	Size  int
}

// Card is the device.
type Card struct {
	engine.BaseDevice
	cfg    Config
	space  *pci.Space
	table  *pci.MSIXTable
	memory [MemorySize]byte
	ports  [PortsSize]byte
	source uint64
	target uint64
	length uint32

	session *engine.Session // reactor only
	current atomic.Pointer[engine.Session]
	tasks   sync.WaitGroup // goroutines of the current session
	status  atomic.Uint32
	churn   atomic.Bool // wanted
	asking  atomic.Bool // a read of guest memory is under way
	overlap atomic.Uint32

	mu      sync.Mutex
	writes  []Write
	resets  int
	clients int
	err     error
}

// New makes a card.
func New(cfg Config) *Card { return &Card{cfg: cfg} }

// Describe is called by the engine.
func (c *Card) Describe() (engine.Description, error) {
	cfg := pci.Config{Vendor: Vendor, Device: DeviceID, Class: Class, InterruptPin: 1}
	cfg.BARs[RegistersBAR] = pci.BAR{Size: RegistersSize}
	cfg.BARs[PortsBAR] = pci.BAR{Size: PortsSize, Type: pci.IO}
	cfg.BARs[MemoryBAR] = pci.BAR{Size: MemorySize, Type: pci.Mem64, Prefetch: true}
	if c.cfg.MSIX {
		cfg.BARs[TableBAR] = pci.BAR{Size: TableSize}
	}
	space, err := pci.NewSpace(cfg)
	if err != nil {
		return engine.Description{}, err
	}
	if _, err := space.AddPM(pci.PM{}); err != nil {
		return engine.Description{}, err
	}
	c.space = space
	desc := engine.Description{Config: space}
	desc.IRQs[irq.INTx], desc.IRQs[irq.Err] = 1, 1 // (QEMU warns of a device without ERR)
	desc.Regions[RegistersBAR] = engine.Region{Size: RegistersSize, Read: c.readRegister, Write: c.writeRegister}
	desc.Regions[PortsBAR] = plain(c.ports[:])
	desc.Regions[MemoryBAR] = plain(c.memory[:])
	if c.cfg.MSIX {
		if _, err := space.AddMSIX(pci.MSIX{Vectors: Vectors, TableBAR: TableBAR, PBABAR: TableBAR, PBAOffset: PBAOffset}); err != nil {
			return engine.Description{}, err
		}
		if c.table, err = pci.NewMSIXTable(Vectors); err != nil {
			return engine.Description{}, err
		}
		c.table.Pending = func(v int) bool { return c.session.IRQ().Vector(irq.MSIX, v).Pending() }
		desc.IRQs[irq.MSIX] = Vectors
		desc.Regions[TableBAR] = engine.Region{Size: TableSize, Read: c.readTable, Write: c.writeTable}
	}
	return desc, nil
}

// plain is a region of bytes that keep what is written.
func plain(b []byte) engine.Region {
	return engine.Region{
		Size:  uint64(len(b)),
		Read:  func(off uint64, p []byte) error { c := copy(p, b[off:]); return whole(c, p) },
		Write: func(off uint64, p []byte) error { c := copy(b[off:], p); return whole(c, p) },
	}
}

func whole(n int, p []byte) error {
	if n < len(p) {
		return syscall.EINVAL
	}
	return nil
}

func (c *Card) readTable(off uint64, p []byte) error {
	if off >= PBAOffset {
		return c.table.ReadPBA(off-PBAOffset, p)
	}
	return c.table.Read(off, p)
}

func (c *Card) writeTable(off uint64, p []byte) error {
	if off >= PBAOffset {
		return nil // read-only
	}
	return c.table.Write(off, p)
}

func (c *Card) readRegister(off uint64, p []byte) error {
	c.count()
	var v uint32
	switch off {
	case RegID:
		v = ID
	case RegLog:
		c.mu.Lock()
		v = uint32(len(c.writes))
		c.mu.Unlock()
	case RegStatus:
		v = c.status.Load()
	case RegOverlap:
		v = c.overlap.Load()
	}
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:], v)
	if n := copy(p, b[:]); n < len(p) {
		clear(p[n:])
	}
	return nil
}

func (c *Card) writeRegister(off uint64, p []byte) error {
	c.count()
	var b [8]byte
	if copy(b[:], p) < len(p) {
		return syscall.EINVAL
	}
	v := binary.LittleEndian.Uint64(b[:])
	switch off {
	case RegLog:
		c.mu.Lock()
		c.writes = append(c.writes, Write{v, len(p)})
		c.mu.Unlock()
	case RegSource:
		c.source = v
	case RegTarget:
		c.target = v
	case RegLength:
		c.length = uint32(v)
	case RegGo:
		c.startCopy()
	case RegLine:
		return c.session.IRQ().Vector(irq.INTx, 0).SetLevel(v != 0)
	case RegVector:
		return c.trigger(int(v))
	case RegChurn:
		c.setChurn(v != 0)
	}
	return nil
}

// count takes down an access that is served while guest memory is being read.
func (c *Card) count() {
	if c.asking.Load() {
		c.overlap.Add(1)
	}
}

func (c *Card) trigger(vector int) error {
	if !c.cfg.MSIX || vector >= Vectors {
		return syscall.EINVAL
	}
	return c.session.IRQ().Vector(irq.MSIX, vector).Trigger()
}

// NewDevice is called by the engine.
func (c *Card) NewDevice(s *engine.Session) error {
	c.session = s
	c.current.Store(s)
	c.mu.Lock()
	c.clients++
	c.mu.Unlock()
	return nil
}

// LockDataPath is called by the engine. What the card does in guest memory is bounded by
// the engine's deadlines, so holding still is waiting.
func (c *Card) LockDataPath(_ *engine.Session, hold bool, done func()) {
	if !hold {
		done()
		return
	}
	c.churn.Store(false)
	go func() {
		c.tasks.Wait()
		done()
	}()
}

// ResetDevice is called by the engine.
func (c *Card) ResetDevice(*engine.Session) {
	c.mu.Lock()
	c.resets++
	c.writes = nil
	c.mu.Unlock()
	c.status.Store(StatusIdle)
	c.source, c.target, c.length = 0, 0, 0
	if c.table != nil {
		c.table.Reset()
	}
}

// Writes returns what was written to RegLog since the last reset.
func (c *Card) Writes() []Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes[:len(c.writes):len(c.writes)]
}

// Resets returns how often the card was reset.
func (c *Card) Resets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.resets
}

// Clients returns how many clients have attached so far.
func (c *Card) Clients() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clients
}

// Stall makes the server of the card stand still until the function that it returns is
// called. It returns when that is the case.
func (c *Card) Stall() (release func()) {
	stalled, done := make(chan struct{}), make(chan struct{})
	c.current.Load().Post(func() {
		close(stalled)
		<-done
	})
	<-stalled
	return sync.OnceFunc(func() { close(done) })
}

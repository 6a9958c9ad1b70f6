package nvme

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"vfiouser/devices/nvme/spec"
)

// blockFormat is an LBA format.
type blockFormat struct {
	shift       uint8 // a block has 1 << shift bytes
	metadata    uint16
	guard       spec.Guard
	storageTag  uint8 // bits
	performance uint8
}

// Relative performance of the formats.
const (
	bestPerformance = 0
	goodPerformance = 2
)

// blockFormats are what a namespace may be formatted with. A guard of 64 bits is for
// blocks of 4 KiB (NVM command set 1.0, 5.2.1.3).
var blockFormats = [...]blockFormat{
	{9, 0, spec.Guard16, 0, bestPerformance},
	{12, 0, spec.Guard16, 0, bestPerformance},
	{9, 8, spec.Guard16, 0, goodPerformance},
	{12, 8, spec.Guard16, 0, goodPerformance},
	{9, 16, spec.Guard16, 0, goodPerformance},
	{12, 16, spec.Guard16, 0, goodPerformance},
	{9, 64, spec.Guard16, 0, goodPerformance},
	{12, 64, spec.Guard16, 0, goodPerformance},
	{12, 16, spec.Guard64, 0, goodPerformance},
	{12, 64, spec.Guard64, 0, goodPerformance},
	{9, 8, spec.Guard16, 16, goodPerformance},
	{12, 8, spec.Guard16, 16, goodPerformance},
	{12, 16, spec.Guard64, 16, goodPerformance},
}

// format is how a namespace is formatted.
type format struct {
	index      uint8 // in blockFormats
	extended   bool  // metadata is transferred at the end of each block
	protection uint8 // type of the protection information, 0: there is none
}

// The largest type of protection information.
const maxProtection = 3

// possible says whether Format NVM may ask for it.
func (f format) possible() bool {
	if int(f.index) >= len(blockFormats) || f.protection > maxProtection {
		return false
	}
	b := &blockFormats[f.index]
	return f.protection == 0 || int(b.metadata) >= b.guard.Size()
}

// needsConsent says whether only a host may use the format that has enabled the extended
// ones (Host Behavior Support, LBAFEE).
func (f format) needsConsent() bool {
	b := &blockFormats[f.index]
	return f.protection != 0 && (b.guard != spec.Guard16 || b.storageTag != 0)
}

// storageTagMask has the bits of the storage tag that are compared: all of them.
func (f format) storageTagMask() uint64 { return 1<<blockFormats[f.index].storageTag - 1 }

// takesMask says whether a namespace may be created with LBSTM: with the bits of the storage
// tag, or 0, as hosts have it that know nothing of storage tags.
func (f format) takesMask(lbstm uint64) bool {
	mask := f.storageTagMask()
	return lbstm&mask == mask || lbstm == 0
}

// flbas and dps are the format as Identify Namespace has it.
func (f format) flbas() uint8 {
	if f.extended && blockFormats[f.index].metadata != 0 {
		return f.index | spec.FLBASExtended
	}
	return f.index
}

func (f format) dps() uint8 { return f.protection }

// blocksIn is how many blocks there are in size bytes: their data, and behind it their
// metadata, of which whole blocks are used too.
func (f format) blocksIn(size int64) uint64 {
	b := &blockFormats[f.index]
	n := uint64(size) / (1<<b.shift + uint64(b.metadata))
	for n > 0 && n+f.metadataBlocks(n) > uint64(size)>>b.shift {
		n--
	}
	return n
}

// bytesOf is the size in bytes that n blocks and their metadata take; false: more than there
// can be.
func (f format) bytesOf(n uint64) (bytes int64, ok bool) {
	b := &blockFormats[f.index]
	if n > math.MaxInt64/(1<<b.shift+uint64(b.metadata)+1<<b.shift) {
		return 0, false
	}
	return int64((n + f.metadataBlocks(n)) << b.shift), true
}

// metadataBlocks is the size of the metadata of n blocks.
func (f format) metadataBlocks(n uint64) uint64 {
	b := &blockFormats[f.index]
	return (n*uint64(b.metadata) + 1<<b.shift - 1) >> b.shift
}

// format finds what a configuration asks for.
func (n *Namespace) format() (format, error) {
	size, guard := n.BlockSize, n.Guard
	orDefault(&size, 512)
	orDefault(&guard, 16)
	f := format{extended: n.Extended, protection: uint8(n.Protection)}
	if n.Protection < 0 || n.Protection > maxProtection {
		return f, fmt.Errorf("protection information of type %d is not from 1 to %d", n.Protection, maxProtection)
	}
	var possible []string
	for i := range blockFormats {
		b := &blockFormats[i]
		if f.index = uint8(i); !f.possible() {
			continue
		}
		if size == 1<<b.shift && n.Metadata == int(b.metadata) && guard == b.guard.Bits() && n.StorageTag == int(b.storageTag) {
			return f, nil
		}
		possible = append(possible, b.String())
	}
	return f, fmt.Errorf("no format has blocks of %d bytes with %d bytes of metadata, protection information of type %d, "+
		"a guard of %d bits and a storage tag of %d; with that type there are %s", size, n.Metadata, n.Protection, guard, n.StorageTag,
		strings.Join(possible, ", "))
}

// String is for example "4096+16 with a guard of 64 bits".
func (b *blockFormat) String() string {
	text := strconv.Itoa(1 << b.shift)
	if b.metadata != 0 {
		text += fmt.Sprintf("+%d", b.metadata)
	}
	var with []string
	if b.guard != spec.Guard16 {
		with = append(with, fmt.Sprintf("a guard of %d bits", b.guard.Bits()))
	}
	if b.storageTag != 0 {
		with = append(with, fmt.Sprintf("a storage tag of %d", b.storageTag))
	}
	if len(with) > 0 {
		text += " with " + strings.Join(with, " and ")
	}
	return text
}

// CheckFormat says whether there is a format such as n asks for, whatever the backend. The
// error is ErrConfig.
func (n *Namespace) CheckFormat() error {
	if _, err := n.format(); err != nil {
		return configError("%v", err)
	}
	return nil
}

// config is the configuration that asks for the format.
func (f format) config() Namespace {
	b := &blockFormats[f.index]
	return Namespace{BlockSize: 1 << b.shift, Metadata: int(b.metadata), Extended: f.extended, Protection: int(f.protection),
		Guard: b.guard.Bits(), StorageTag: int(b.storageTag)}
}

// allows says whether the host may use a format (NVM command set 1.0, 4.1.3.4).
func (c *Controller) allows(f format) bool { return !f.needsConsent() || c.extendedFormats.Load() }

// serves says whether the host's I/O commands may use a namespace.
func (c *Controller) serves(ns *namespace) bool { return c.allows(ns.format) }

// served is namespace for I/O commands.
func (c *Controller) served(id uint32) *namespace {
	if ns := c.namespace(id); ns != nil && c.serves(ns) {
		return ns
	}
	return nil
}

package hostile

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

// attempt sends a command that may be refused, but must be answered.
func (c *raw) attempt(cmd codec.Command, payload []byte, fds ...int) {
	c.a.Helper()
	if _, err := c.try(cmd, payload, fds...); err != nil {
		if _, ok := err.(unix.Errno); !ok {
			c.a.Fatal(err)
		}
	}
}

func TestEveryOffsetOfBAR0(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "random values of 1, 2, 4 and 8 bytes", func(a *attack) {
		r := a.random()
		g := a.newRig(16 << 20)
		for off := range uint64(16 << 10) {
			var b []byte
			for _, n := range []int{1, 2, 4, 8} {
				data := make([]byte, n)
				garbage(r, data)
				b = append(b, g.message(codec.CmdRegionWrite, codec.FlagNoReply, access(0, off, data))...)
			}
			g.must(b)
		}
		g.alive()
	})
}

func TestRandomRegisterWrites(t *testing.T) {
	forModes(t, allModes, func(t *testing.T, l *lab) {
		l.attack(t, "the registers, while commands run", func(a *attack) {
			r := a.random()
			g, p := a.started(1024)
			p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
			values := []uint64{0, uint64(enabled), uint64(enabled) | 1<<14, uint64(enabled) | 2<<14, ramBase, ramBase + pageSize, nowhere}
			for range 5000 {
				v := r.Uint64()
				if r.IntN(3) > 0 {
					v = values[r.IntN(len(values))]
				}
				n := 4 << r.IntN(2)
				g.post(codec.CmdRegionWrite, access(0, 4*r.Uint64N(0x40/4), binary.LittleEndian.AppendUint64(nil, v)[:n]))
			}
			g.alive()
		})
		l.attack(t, "every region, every offset of the first page", func(a *attack) {
			r := a.random()
			g, p := a.started(64)
			p.flood(memNS, ramBase+g.ram.alloc(pageSize))
			for region := range engine.NumRegions {
				for off := range uint64(4097) {
					data := make([]byte, 1+r.IntN(8))
					garbage(r, data)
					if region == engine.RegionBAR0 && off < 0x40 {
						continue
					}
					g.post(codec.CmdRegionWrite, access(region, off, data))
				}
			}
			g.alive()
		})
	})
}

func TestRandomConfigurationSpace(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "every byte, every value", func(a *attack) {
		s := a.session()
		for off := range uint64(256) {
			for v := range 256 {
				s.post(codec.CmdRegionWrite, access(engine.RegionConfig, off, []byte{byte(v)}))
			}
		}
		s.alive()
	})
	l.attack(t, "random writes, while commands run", func(a *attack) {
		r := a.random()
		g, p := a.started(1024)
		p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
		for range 20_000 {
			data := make([]byte, 1<<r.IntN(5))
			garbage(r, data)
			off := r.Uint64N(4096)
			if r.IntN(2) == 0 {
				off = r.Uint64N(256)
			}
			g.post(codec.CmdRegionWrite, access(engine.RegionConfig, off, data))
		}
		g.alive()
	})
}

func TestAccessesOutOfBounds(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "of every region", func(a *attack) {
		s := a.session()
		sizes := [engine.NumRegions + 1]uint64{0: 16 << 10, 4: 4096, 5: 4096, engine.RegionConfig: 4096}
		for region, size := range sizes {
			for _, off := range []uint64{size, size - 1, size - 4, size + 4096, 1 << 31, 1 << 32, 1 << 63, 1<<64 - 1, 1<<64 - 8} {
				for _, n := range []uint32{0, 1, 4, 8, 4096, 1 << 20, 1<<20 + 1, 1 << 31, 1<<32 - 1} {
					ask := codec.RegionAccess{Offset: off, Region: uint32(region), Count: n}
					_, err := s.try(codec.CmdRegionRead, ask.AppendHead(nil))
					inside := uint64(n) <= size && off <= size-uint64(n)
					if inside != (err == nil) && n > 0 {
						a.Errorf("%d bytes at %#x of region %d: %v", n, off, region, err)
					}
					s.attempt(codec.CmdRegionWrite, ask.AppendHead(nil)) // without data
				}
			}
		}
		s.alive()
	})
	l.attack(t, "of regions that do not exist", func(a *attack) {
		s := a.session()
		for _, region := range []uint32{9, 255, 1 << 16, 1 << 31, 1<<32 - 1} {
			s.refused(unix.EINVAL, codec.CmdRegionRead, (&codec.RegionAccess{Region: region, Count: 4}).AppendHead(nil))
			s.refused(unix.EINVAL, codec.CmdGetRegionInfo, (&codec.RegionInfo{ArgSz: 32, Index: region}).AppendRequest(nil))
			s.refused(unix.EINVAL, codec.CmdGetIRQInfo, (&codec.IRQInfo{ArgSz: codec.IRQInfoSize, Index: codec.IRQIndex(region)}).Append(nil))
		}
		s.alive()
	})
}

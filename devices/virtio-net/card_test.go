package virtionet

import (
	"fmt"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	virtio "vfiouser/devices/virtio/spec"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
	"vfiouser/test/holdings"
)

// layouts are the features of rings.
var layouts = map[string]uint64{
	"split":              0,
	"split,event index":  virtio.FeatureEventIdx,
	"split,indirect":     virtio.FeatureIndirectDesc,
	"packed":             virtio.FeatureRingPacked,
	"packed,everything":  virtio.FeatureRingPacked | virtio.FeatureEventIdx | virtio.FeatureIndirectDesc | virtio.FeatureInOrder,
	"split,in order":     virtio.FeatureInOrder,
	"split,notification": virtio.FeatureNotificationData,
}

func TestFramesBothWays(t *testing.T) {
	for name, ring := range layouts {
		for _, features := range []uint64{0, spec.FeatureMrgRxBuf, spec.FeatureMrgRxBuf | spec.FeatureHashReport | spec.FeatureCtrlVQ} {
			for _, byMessage := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s,%#x,%v", name, features, byMessage), func(t *testing.T) {
					holdings.CheckLeaks(t)
					r := newRig(t, Config{})
					g := r.attach(options{features: ring | features, byMessage: byMessage})
					p := g.pairs[0]
					var sent [][]byte
					for i, cuts := range [][]int{nil, {g.header}, {g.header, 14}, {5}, {5, 3}, {g.header + 20}, {g.header + 20, 100}} {
						sent = append(sent, frameOf(i, 60+200*i))
						p.send(vnet.Header{}, sent[i], cuts...)
					}
					equal(t, r.link.Sent(), sent...)
					for i, data := range sent {
						r.link.Arrive(linktest.Frame{Data: data})
						equal(t, p.receive(1), data)
						if got := p.merged[i]; got != 1 {
							t.Errorf("a frame in %d buffers", got)
						}
					}
				})
			}
		}
	}
}

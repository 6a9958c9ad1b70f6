package nvme

import "vfiouser/devices/nvme/spec"

// adminEffects is what admin commands do beside being supported: to data, to namespaces and to
// what the controller can do.
var adminEffects = [256]uint32{
	spec.AdminNamespaceManagement: spec.EffectNamespaceSet,
	spec.AdminNamespaceAttachment: spec.EffectNamespaceSet,
	spec.AdminFormatNVM:           spec.EffectLogicalBlocks | spec.EffectNamespaceCaps | spec.EffectExecutionExclNS,
	spec.AdminSanitize:            spec.EffectLogicalBlocks,
}

// effectsPage lists the commands supported (Base 2.0, 5.16.1.6).
func (h *host) effectsPage() *spec.EffectsLog {
	l := &spec.EffectsLog{}
	for op, command := range h.c.commands {
		if command != nil {
			l.Admin[op] = spec.EffectSupported | adminEffects[op]
		}
	}
	if !h.offersShadow() {
		l.Admin[spec.AdminDoorbellBuffer] = 0
	}
	for op, command := range ioCommands {
		l.IO[op] = command.effects
	}
	return l
}

// featureEffects lists the features supported (Base 2.0, 5.16.1.18). None of them changes data
// or capabilities.
func (h *host) featureEffects() []byte {
	l := &spec.FeatureEffects{}
	for i := range h.c.features {
		if h.offers(uint8(i)) {
			l[i] = spec.EffectSupported | h.c.features[i].scope
		}
	}
	return page(spec.FeatureEffectsSize, l)
}

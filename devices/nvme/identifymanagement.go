package nvme

import (
	"time"

	"vfiouser/devices/nvme/spec"
)

// identifyManagement fills in what Identify Controller says of power, temperatures, logs and
// firmware (Base 2.0, figure 275).
func identifyManagement(id *spec.IdentifyController) {
	id.NPSS = uint8(copy(id.PowerStates[:], powerStates) - 1)
	id.APSTA = 1
	id.KAS = uint16(keepAliveUnit / (100 * time.Millisecond))
	id.HCTMA, id.MinThermal, id.MaxThermal = 1, minThermal, maxThermal
	id.LPA = spec.LPAEffects | spec.LPAExtendedData | spec.LPATelemetry | spec.LPAPersistentEvents | spec.LPASupportedPages
	id.PELS = journalSize >> 16
	id.CTRATT |= spec.CTRATTEnduranceGroups
	id.EnduranceGroups = enduranceGroup
	id.OACS |= spec.OACSFirmware | spec.OACSSelfTest | spec.OACSSecurity | spec.OACSDirectives
	id.SelfTestTime, id.SelfTestOptions = selfTestMinutes, 1
	id.SANICAP = sanitizeCapabilities
	id.NWPC = spec.NWPCProtect | spec.NWPCPowerCycle | spec.NWPCPermanent
	id.FRMW = spec.FRMWReadOnlySlot1 | firmwareSlots<<spec.FRMWSlotsShift | spec.FRMWActivateNoReset
	id.FWUG = firmwareUnit >> 12
	id.MTFA = 1
}

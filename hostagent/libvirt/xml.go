package libvirt

import (
	"fmt"

	"libvirt.org/go/libvirtxml"

	"daybreak/hostagent"
)

// dataSerial is how the guest finds its data disk: /dev/disk/by-id/virtio-daybreak-data.
const dataSerial = "daybreak-data"

// tbCacheMiB bounds the translated code of an emulated guest. QEMU's default is 1 GiB, which a small guest can fill; below
// some tens of MiB it is thrown away and made again all the time.
const tbCacheMiB = 128

// domainName is unique per host, so that libvirt itself refuses a second VM of a desktop, whatever its generation.
func domainName(life hostagent.Life) string {
	if life.Build {
		return "build-" + life.Desktop + "-" + life.UID
	}
	return life.Desktop + "-" + life.UID[:8]
}

// domainXML describes a VM. Everything is a typed field of a checked value; nothing is pasted into text.
func (cfg Config) domainXML(m hostagent.Machine) (string, error) {
	if err := cfg.checkMachine(m); err != nil {
		return "", fmt.Errorf("describe VM: %w", err)
	}
	metadata, err := encodeLife(m.Life)
	if err != nil {
		return "", fmt.Errorf("describe VM: %w", err)
	}
	d := &libvirtxml.Domain{
		Type:     "kvm",
		Name:     domainName(m.Life),
		UUID:     m.VMUUID,
		Metadata: &libvirtxml.DomainMetadata{XML: metadata},
		// The guest's memory has no place in a core dump of QEMU.
		Memory:   &libvirtxml.DomainMemory{Value: uint(m.MemoryMiB), Unit: "MiB", DumpCore: "off"},
		VCPU:     &libvirtxml.DomainVCPU{Placement: "static", Value: uint(m.VCPUs)},
		OS:       &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"}},
		Features: &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}, VMPort: &libvirtxml.DomainFeatureState{State: "off"}},
		// One socket, since desktop editions of Windows use no more than one or two.
		CPU: &libvirtxml.DomainCPU{Mode: "host-passthrough", Topology: &libvirtxml.DomainCPUTopology{Sockets: 1, Dies: 1, Cores: int(m.VCPUs), Threads: 1}},
		Clock: &libvirtxml.DomainClock{Offset: "utc", Timer: []libvirtxml.DomainTimer{
			{Name: "rtc", TickPolicy: "catchup"}, {Name: "pit", TickPolicy: "delay"}, {Name: "hpet", Present: "no"}}},
		// A VM that ends is gone from the host's list: what comes next is the orchestrator's business.
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
		// A guest that puts itself to sleep could not be told from one that hangs.
		PM:      &libvirtxml.DomainPM{SuspendToMem: &libvirtxml.DomainPMPolicy{Enabled: "no"}, SuspendToDisk: &libvirtxml.DomainPMPolicy{Enabled: "no"}},
		Devices: devices(m),
	}
	if m.Emulate {
		d.Type = "qemu"
		d.CPU.Mode = "maximum"
		d.Features.TCG = &libvirtxml.DomainFeatureTCG{TBCache: &libvirtxml.DomainFeatureTCGTBCache{Unit: "MiB", Size: tbCacheMiB}}
	}
	text, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("describe VM: %w", err)
	}
	return text, nil
}

// devices are the least that a desktop needs. What is not wanted and would come by itself is turned off by name.
func devices(m hostagent.Machine) *libvirtxml.DomainDeviceList {
	list := &libvirtxml.DomainDeviceList{
		Disks:       disks(m),
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		// The console of the guest's kernel, for virsh console. What nobody reads is dropped: a guest cannot fill a disk.
		Serials: []libvirtxml.DomainSerial{{Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}}},
		Channels: []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
		}},
		Inputs: []libvirtxml.DomainInput{{Type: "tablet", Bus: "virtio"}, {Type: "keyboard", Bus: "virtio"}},
		// A socket in a directory of the agent's, no port; and no agent channel, so neither clipboard nor file transfer.
		Graphics: []libvirtxml.DomainGraphic{{VNC: &libvirtxml.DomainGraphicVNC{Listeners: []libvirtxml.DomainGraphicListener{
			{Socket: &libvirtxml.DomainGraphicListenerSocket{Socket: m.VNC}}}}}},
		// A VGA to guests without a driver for it, and a display of any size to those with one.
		Videos: []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "virtio", Heads: 1, Primary: "yes"}}},
		// Without a balloon nobody can take the guest's memory by accident.
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "none"},
		RNGs: []libvirtxml.DomainRNG{{Model: "virtio", Backend: &libvirtxml.DomainRNGBackend{
			Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}}}},
	}
	if m.Bridge != "" {
		list.Interfaces = []libvirtxml.DomainInterface{{
			MAC:    &libvirtxml.DomainInterfaceMAC{Address: m.MAC},
			Source: &libvirtxml.DomainInterfaceSource{Bridge: &libvirtxml.DomainInterfaceSourceBridge{Bridge: m.Bridge}},
			Model:  &libvirtxml.DomainInterfaceModel{Type: "virtio"},
			// No desktop boots from the network, and trying takes seconds where the guest is emulated.
			ROM: &libvirtxml.DomainROM{Enabled: "no"},
		}}
	}
	return list
}

// disks gives the whole chain with its formats, and its end: neither libvirt nor QEMU ever looks into a file to find out.
func disks(m hostagent.Machine) []libvirtxml.DomainDisk {
	system := overlay("vda", m.Overlay, m.Base)
	system.Boot = &libvirtxml.DomainDeviceBoot{Order: 1}
	all := []libvirtxml.DomainDisk{system}
	if m.Data != "" {
		data := disk("vdb", "raw", m.Data)
		data.Serial = dataSerial
		all = append(all, data)
	}
	if m.Target != "" {
		target := overlay("vdb", m.Target, m.TargetBase)
		target.Serial = hostagent.TargetSerial
		all = append(all, target)
	}
	return all
}

func overlay(target, path string, base hostagent.Base) libvirtxml.DomainDisk {
	d := disk(target, "qcow2", path)
	d.BackingStore = backing("raw", base.Raw, &libvirtxml.DomainDiskBackingStore{})
	if base.Layer != "" {
		d.BackingStore = backing("qcow2", base.Layer, d.BackingStore)
	}
	return d
}

func backing(format, path string, below *libvirtxml.DomainDiskBackingStore) *libvirtxml.DomainDiskBackingStore {
	return &libvirtxml.DomainDiskBackingStore{Format: &libvirtxml.DomainDiskFormat{Type: format}, Source: source(path), BackingStore: below}
}

func disk(target, format, path string) libvirtxml.DomainDisk {
	return libvirtxml.DomainDisk{
		Device: "disk",
		Driver: &libvirtxml.DomainDiskDriver{
			Name: "qemu", Type: format,
			// Through the host's page cache, which all clones of a base share; with none each would read the base from the
			// disk itself. The guest's flushes reach the disk all the same.
			Cache: "writeback",
			// What the guest trims is given back to the store.
			Discard: "unmap",
			// On a full or failing store the guest stands still, and goes on when that is mended. The default would hand it
			// I/O errors, which damage what it has on its disk.
			ErrorPolicy: "stop", RErrorPolicy: "stop",
		},
		Source:       source(path),
		BackingStore: &libvirtxml.DomainDiskBackingStore{},
		Target:       &libvirtxml.DomainDiskTarget{Dev: target, Bus: "virtio"},
	}
}

// source names a file that is QEMU's already. libvirt would give it to QEMU's user at the start and back to root at the
// end, for bases that other VMs run on too.
func source(path string) *libvirtxml.DomainDiskSource {
	return &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{
		File: path, SecLabel: []libvirtxml.DomainDeviceSecLabel{{Model: "dac", Relabel: "no"}},
	}}
}

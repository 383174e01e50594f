package hostagent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/procfs"
)

// Hardware is what a host has in all and which boot it is in.
type Hardware struct {
	// BootID is the kernel's random id of this boot.
	BootID    string
	CPUs      int
	MemoryMiB uint64
	// CPUModel is what the first CPU calls itself; empty when it does not.
	CPUModel string
}

// Load is how busy a host is: free memory, and the share of the last 10 s in which something waited, in percent.
type Load struct {
	MemoryAvailableMiB uint64
	// PSIKnown: the kernel tells of pressure.
	PSIKnown                 bool
	PSICPU, PSIMemory, PSIIO float64
}

// Meter reads the host's instruments. ProcMeter is the real one, fakehost the other.
type Meter interface {
	Hardware() (Hardware, error)
	Load() (Load, error)
}

// ProcMeter reads a mounted proc file system.
type ProcMeter struct {
	root string
	proc procfs.FS
}

// NewProcMeter reads from root, usually /proc.
func NewProcMeter(root string) (ProcMeter, error) {
	proc, err := procfs.NewFS(root)
	if err != nil {
		return ProcMeter{}, fmt.Errorf("open %s: %w", root, err)
	}
	return ProcMeter{root: root, proc: proc}, nil
}

// Hardware implements Meter.
func (m ProcMeter) Hardware() (Hardware, error) {
	bootID, err := os.ReadFile(filepath.Join(m.root, "sys/kernel/random/boot_id"))
	if err != nil {
		return Hardware{}, fmt.Errorf("read boot id: %w", err)
	}
	memory, err := m.proc.Meminfo()
	if err != nil {
		return Hardware{}, fmt.Errorf("read memory: %w", err)
	}
	stat, err := m.proc.Stat()
	if err != nil {
		return Hardware{}, fmt.Errorf("count CPUs: %w", err)
	}
	if memory.MemTotalBytes == nil || len(stat.CPU) == 0 {
		return Hardware{}, errors.New("read hardware: the kernel does not say how much memory or how many CPUs there are")
	}
	hardware := Hardware{BootID: strings.TrimSpace(string(bootID)), CPUs: len(stat.CPU), MemoryMiB: *memory.MemTotalBytes >> 20}
	// Not every architecture has it.
	if cpus, err := m.proc.CPUInfo(); err == nil && len(cpus) > 0 {
		hardware.CPUModel = cpus[0].ModelName
	}
	return hardware, nil
}

// Load implements Meter. Kernels without pressure-stall information report none.
func (m ProcMeter) Load() (Load, error) {
	memory, err := m.proc.Meminfo()
	if err != nil {
		return Load{}, fmt.Errorf("read memory: %w", err)
	}
	var load Load
	if memory.MemAvailableBytes != nil {
		load.MemoryAvailableMiB = *memory.MemAvailableBytes >> 20
	}
	for resource, into := range map[string]*float64{"cpu": &load.PSICPU, "memory": &load.PSIMemory, "io": &load.PSIIO} {
		stats, err := m.proc.PSIStatsForResource(resource)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return Load{}, fmt.Errorf("read pressure of %s: %w", resource, err)
		}
		if stats.Some != nil {
			load.PSIKnown = true
			*into = min(max(stats.Some.Avg10, 0), 100)
		}
	}
	return load, nil
}

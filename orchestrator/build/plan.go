package build

import (
	"fmt"
	"regexp"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"daybreak/orchestrator/placement"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Defaults of an order, as its proto promises them.
const (
	defaultVCPUs         = 2
	defaultMemoryMiB     = 2048
	defaultBootTimeout   = 5 * time.Minute
	defaultScriptTimeout = time.Hour
	// maxFiles is how many bytes all files of a build may have.
	maxFiles = 4 << 30
	// checkDiskMiB is what a check may write; a patch may write as much as its disk has, of which so much is asked of the host.
	checkDiskMiB = 1024
	patchDiskMiB = 4096
)

// plan is an order, understood.
type plan struct {
	order     *v1.BuildOrder // all defaults filled in
	image     string
	version   *v1.ImageVersion // to patch or to check
	appliance *v1.ImageVersion // nil unless offline
}

// absolute is what a path in a guest looks like: Linux's or Windows'.
var absolute = regexp.MustCompile(`^(/|[A-Za-z]:[\\/])`)

// resolve reads an order as of a view. It is pure.
func resolve(view *store.View, asked *v1.BuildOrder) (*plan, error) {
	if err := checkOrder(asked); err != nil {
		return nil, err
	}
	order := withDefaults(asked)
	image, ok := store.Lookup[*v1.Image](view, order.GetImage())
	if !ok {
		return nil, fmt.Errorf("there is no image %s: %w", order.GetImage(), store.ErrNotFound)
	}
	if image.GetMeta().GetDeletion() != nil {
		return nil, fmt.Errorf("image %s is being deleted: %w", order.GetImage(), ErrRefused)
	}
	version, err := versionOf(image, order)
	if err != nil {
		return nil, err
	}
	if err := checkRolledBack(view, asked, version); err != nil {
		return nil, err
	}
	order.Version = version.GetNumber()
	p := &plan{order: order, image: order.GetImage(), version: version}
	if order.GetOffline() {
		if p.appliance, err = applianceOf(view, order.GetAppliance()); err != nil {
			return nil, err
		}
	}
	if zone := order.GetZone(); zone != "" {
		if _, ok := store.Lookup[*v1.Zone](view, zone); !ok {
			return nil, fmt.Errorf("there is no zone %s: %w", zone, store.ErrNotFound)
		}
	}
	if order.Shape.OverlayReserveMib == 0 {
		order.Shape.OverlayReserveMib = checkDiskMiB
		if order.GetKind() == v1.BuildKind_BUILD_KIND_PATCH {
			order.Shape.OverlayReserveMib = uint32(min(patchDiskMiB, mebibytes(version.GetSizeBytes()))) //nolint:gosec // at most patchDiskMiB
		}
	}
	return p, nil
}

// checkOrder refuses what contradicts itself; the rules of single fields are in the proto.
func checkOrder(order *v1.BuildOrder) error {
	wrong := func(format string, args ...any) error {
		return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrInvalid)
	}
	if order.GetShape().GetDataDiskGib() != 0 {
		return wrong("shape.dataDiskGib: a build has no data disk")
	}
	if order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK {
		if len(order.GetScript()) > 0 || len(order.GetFiles()) > 0 || order.GetInteractive() || order.GetOffline() || order.GetUnsealed() {
			return wrong("a check boots the version as it is: it takes no script and no files, and is neither interactive nor offline")
		}
		return nil
	}
	switch {
	case len(order.GetScript()) == 0 && !order.GetInteractive():
		return wrong("script: a patch needs one, unless it is interactive")
	case order.GetOffline() && order.GetInteractive():
		return wrong("an offline patch boots no guest that could be seen: it cannot be interactive")
	case order.GetOffline() != (order.GetAppliance() != ""):
		return wrong("appliance: an offline patch needs the image to run in, and no other patch takes one")
	}
	var total uint64
	for _, file := range order.GetFiles() {
		if !absolute.MatchString(file.GetPath()) {
			return wrong("files: %q is not an absolute path in the guest", file.GetPath())
		}
		total += file.GetSize()
	}
	if total > maxFiles {
		return wrong("files: they have %d bytes together, more than the %d (4 GiB) that a build takes", total, uint64(maxFiles))
	}
	return nil
}

func withDefaults(asked *v1.BuildOrder) *v1.BuildOrder {
	order := proto.CloneOf(asked)
	if order.Shape == nil {
		order.Shape = &v1.Shape{}
	}
	if order.Shape.Vcpus == 0 {
		order.Shape.Vcpus = defaultVCPUs
	}
	if order.Shape.MemoryMib == 0 {
		order.Shape.MemoryMib = defaultMemoryMiB
	}
	if order.BootTimeout == nil {
		order.BootTimeout = durationpb.New(defaultBootTimeout)
	}
	if order.ScriptTimeout == nil {
		order.ScriptTimeout = durationpb.New(defaultScriptTimeout)
	}
	return order
}

// versionOf finds the version that an order is about.
func versionOf(image *v1.Image, order *v1.BuildOrder) (*v1.ImageVersion, error) {
	number, versions := order.GetVersion(), image.GetStatus().GetVersions()
	if number == 0 && order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK && len(versions) > 0 {
		number = versions[len(versions)-1].GetNumber()
	} else if number == 0 {
		number = image.GetStatus().GetCurrent()
	}
	if number == 0 {
		return nil, fmt.Errorf("image %s has no published version: publish one, or name one with --version: %w", order.GetImage(), ErrRefused)
	}
	return usable(image, number)
}

// checkRolledBack refuses a patch of the current version by default where a pool went back from it: what was wrong with it would
// be in the next one, too. Whoever wants that names the version.
func checkRolledBack(view *store.View, asked *v1.BuildOrder, version *v1.ImageVersion) error {
	if asked.GetVersion() != 0 || asked.GetKind() != v1.BuildKind_BUILD_KIND_PATCH {
		return nil
	}
	for _, pool := range store.All[*v1.Pool](view) {
		release := pool.GetRelease()
		if release.GetImage() == asked.GetImage() && release.GetRefused() == version.GetNumber() {
			return fmt.Errorf("pool %s went back from version %d of image %s to version %d: say with --version which one to patch: %w",
				pool.GetMeta().GetName(), version.GetNumber(), asked.GetImage(), release.GetVersion(), ErrRefused)
		}
	}
	return nil
}

// usable returns a version that may be booted in a build: a withdrawn one may not, a collected one is gone.
func usable(image *v1.Image, number uint32) (*v1.ImageVersion, error) {
	name := image.GetMeta().GetName()
	v := store.Version(image, number)
	switch {
	case v == nil:
		return nil, fmt.Errorf("image %s has no version %d: %w", name, number, store.ErrNotFound)
	case v.GetCollected():
		return nil, fmt.Errorf("the content of version %d of image %s is no longer in the image store: %w", number, name, ErrRefused)
	case v.GetState() == v1.VersionState_VERSION_STATE_WITHDRAWN:
		return nil, fmt.Errorf("version %d of image %s is withdrawn, and nothing may start it: name another with --version: %w", number, name, ErrRefused)
	}
	return v, nil
}

func applianceOf(view *store.View, name string) (*v1.ImageVersion, error) {
	image, ok := store.Lookup[*v1.Image](view, name)
	if !ok {
		return nil, fmt.Errorf("there is no image %s to be the appliance: %w", name, store.ErrNotFound)
	}
	if image.GetStatus().GetCurrent() == 0 {
		return nil, fmt.Errorf("image %s, the appliance, has no published version: %w", name, ErrRefused)
	}
	return usable(image, image.GetStatus().GetCurrent())
}

// choose finds the host for the build's VM, taken being the memory of other builds by host, MiB, and not the hosts that
// have refused it.
func (p *plan) choose(view *store.View, taken map[string]uint64, not map[string]bool) (string, error) {
	bases := map[string]uint64{p.version.GetDigest(): p.version.GetSizeBytes()}
	if p.appliance != nil {
		bases[p.appliance.GetDigest()] = p.appliance.GetSizeBytes()
	}
	var files uint64
	for _, file := range p.order.GetFiles() {
		files += file.GetSize()
	}
	host, why := placement.ForBuild(view, placement.Build{
		Host: p.order.GetHost(), Not: not, Zone: p.order.GetZone(), Bases: bases, MemoryMiB: p.memoryMiB(),
		DiskMiB: uint64(p.order.GetShape().GetOverlayReserveMib()) + mebibytes(files), Taken: taken,
	})
	if host == "" {
		return "", fmt.Errorf("%s of image %s: %s: %w", p.word(), p.image, why, ErrRefused)
	}
	return host, nil
}

func (p *plan) memoryMiB() uint64 { return uint64(p.order.GetShape().GetMemoryMib()) }

// word names what is done.
func (p *plan) word() string {
	if p.order.GetKind() == v1.BuildKind_BUILD_KIND_CHECK {
		return "check"
	}
	return "patch"
}

// assignment is what the agent is told first.
func (p *plan) assignment() *v1.BuildAssignment {
	return &v1.BuildAssignment{
		Order: p.order, Digest: p.version.GetDigest(), Signatures: p.version.GetSignatures(),
		ApplianceDigest: p.appliance.GetDigest(), ApplianceSignatures: p.appliance.GetSignatures(),
	}
}

// check is the plan of the check that follows a patch, of the version it made.
func (p *plan) check(made *v1.ImageVersion) *plan {
	order := proto.CloneOf(p.order)
	order.Kind, order.Version = v1.BuildKind_BUILD_KIND_CHECK, made.GetNumber()
	order.Script, order.Files, order.Interactive, order.Unsealed = nil, nil, false, false
	order.Offline, order.Appliance = false, ""
	order.Shape.OverlayReserveMib = checkDiskMiB
	return &plan{order: order, image: p.image, version: made}
}

// mebibytes rounds up, since it is used for needs.
func mebibytes(bytes uint64) uint64 {
	const mib = 1 << 20
	return bytes/mib + min(1, bytes%mib)
}

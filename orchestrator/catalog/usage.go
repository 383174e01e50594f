package catalog

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxNamed is how many desktops a usage names, as in its proto.
const maxNamed = 20

// Users is everything that can refer to a version.
type Users struct {
	Pools    []*v1.Pool
	Desktops []*v1.Desktop
	Hosts    []*v1.Host
	Rollouts []*v1.Rollout
}

// UsersIn are those of a view.
func UsersIn(view *store.View) Users {
	return Users{
		Pools: store.All[*v1.Pool](view), Desktops: store.All[*v1.Desktop](view),
		Hosts: store.All[*v1.Host](view), Rollouts: store.All[*v1.Rollout](view),
	}
}

// readUsers reads them as they are now.
func readUsers(ctx context.Context, st *store.Store) (users Users, err error) {
	if users.Rollouts, _, err = store.List[*v1.Rollout](ctx, st); err != nil {
		return users, err
	}
	if users.Pools, _, err = store.List[*v1.Pool](ctx, st); err != nil {
		return users, err
	}
	if users.Desktops, _, err = store.List[*v1.Desktop](ctx, st); err != nil {
		return users, err
	}
	users.Hosts, _, err = store.List[*v1.Host](ctx, st)
	return users, err
}

// Usage says who uses the versions of an image and where they lie, a line for each version, oldest first.
func Usage(image *v1.Image, users Users) []*v1.VersionUsage {
	pools, desktops := poolsByVersion(image, users), desktopsByVersion(image, users.Desktops)
	hosts := map[string][]string{}
	for _, host := range users.Hosts {
		for _, digest := range host.GetStatus().GetImages() {
			hosts[digest] = append(hosts[digest], host.GetMeta().GetName())
		}
	}
	var usage []*v1.VersionUsage
	for _, v := range image.GetStatus().GetVersions() {
		line := &v1.VersionUsage{
			Number: v.GetNumber(), Pools: slices.Sorted(maps.Keys(pools[v.GetNumber()])), Desktops: uint32(len(desktops[v.GetNumber()])),
		}
		names := desktops[v.GetNumber()]
		slices.Sort(names)
		line.DesktopNames = names[:min(len(names), maxNamed)]
		line.Hosts = slices.Compact(slices.Sorted(slices.Values(hosts[v.GetDigest()])))
		usage = append(usage, line)
	}
	return usage
}

// poolsByVersion names the pools that run a version, move to it, would go back to it, or ask for it.
func poolsByVersion(image *v1.Image, users Users) map[uint32]map[string]struct{} {
	named := map[uint32]map[string]struct{}{}
	note := func(pool string, numbers ...uint32) {
		for _, number := range numbers {
			if named[number] == nil {
				named[number] = map[string]struct{}{}
			}
			named[number][pool] = struct{}{}
		}
	}
	name := image.GetMeta().GetName()
	for _, pool := range users.Pools {
		release, spec := pool.GetRelease(), pool.GetSpec()
		if release.GetImage() == name {
			note(pool.GetMeta().GetName(), release.GetVersion(), release.GetNext(), release.GetPrevious())
		}
		if spec.GetImage() == name {
			note(pool.GetMeta().GetName(), spec.GetVersion())
		}
		if spec.GetImage() == name && release.GetImage() != name {
			note(pool.GetMeta().GetName(), store.WantedVersion(pool, image)) // it runs that until its release says something
		}
	}
	for _, r := range users.Rollouts {
		if r.GetSpec().GetImage() == name && !over(r) {
			note(r.GetSpec().GetPool(), r.GetSpec().GetFromVersion(), r.GetSpec().GetToVersion())
		}
	}
	return named
}

// over: the rollout has ended.
func over(r *v1.Rollout) bool {
	switch r.GetStatus().GetPhase() {
	case v1.RolloutPhase_ROLLOUT_PHASE_DONE, v1.RolloutPhase_ROLLOUT_PHASE_ROLLED_BACK, v1.RolloutPhase_ROLLOUT_PHASE_SUPERSEDED:
		return true
	}
	return false
}

// desktopsByVersion names the desktops whose present life runs a version.
func desktopsByVersion(image *v1.Image, desktops []*v1.Desktop) map[uint32][]string {
	named := map[uint32][]string{}
	for _, desktop := range desktops {
		if life := desktop.GetIncarnation(); life.GetImage() == image.GetMeta().GetName() {
			named[life.GetVersion()] = append(named[life.GetVersion()], desktop.GetMeta().GetName())
		}
	}
	return named
}

// usersOf says who uses a version, for people; empty when nobody does.
func usersOf(usage *v1.VersionUsage) string {
	var parts []string
	if pools := usage.GetPools(); len(pools) > 0 {
		parts = append(parts, "pool "+listed(pools, len(pools)))
	}
	if n := int(usage.GetDesktops()); n > 0 {
		parts = append(parts, "desktop "+listed(usage.GetDesktopNames(), n))
	}
	return strings.Join(parts, " and ")
}

// listed names the first few of n.
func listed(names []string, n int) string {
	const most = 8
	shown := names[:min(len(names), most)]
	if rest := n - len(shown); rest > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(shown, ", "), rest)
	}
	return strings.Join(shown, ", ")
}

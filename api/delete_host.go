package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// deleteHost removes a host without desktops, or one that is DOWN and that somebody saw to be off. Its certificate is
// refused from then on, and what ran there counts as ended.
func (s *objectService) deleteHost(ctx context.Context, host *v1.Host, attestedOff bool) (*v1.DeleteResponse, error) {
	name := host.GetMeta().GetName()
	desktops, err := s.desktopsOn(ctx, name)
	if err != nil {
		return nil, err
	}
	if attestedOff {
		if phase := host.GetStatus().GetPhase(); phase != v1.HostPhase_HOST_PHASE_DOWN {
			return nil, status.Errorf(codes.FailedPrecondition, "host %s is not DOWN: its agent was heard a moment ago, so the machine cannot be off", name)
		}
		return s.remove(ctx, host)
	}
	if len(desktops) > 0 {
		return nil, hasDesktops(name, desktops)
	}
	if host.GetSpec().GetUnschedulable() {
		return s.remove(ctx, host)
	}
	return s.drainAndRemove(ctx, host)
}

// drainAndRemove closes the host to placement before it looks a last time: a placement that was decided before names a
// revision of the host that is past, and one decided later does not choose it.
func (s *objectService) drainAndRemove(ctx context.Context, host *v1.Host) (*v1.DeleteResponse, error) {
	name := host.GetMeta().GetName()
	closed := proto.CloneOf(host)
	if closed.Spec == nil {
		closed.Spec = &v1.HostSpec{}
	}
	closed.Spec.Unschedulable = true
	revision, err := s.store.Commit(ctx, store.Update(closed))
	if err != nil {
		return nil, err
	}
	closed.Meta.Revision = revision
	desktops, err := s.desktopsOn(ctx, name)
	if err != nil {
		return nil, err
	}
	if len(desktops) == 0 {
		return s.remove(ctx, closed)
	}
	if _, err := store.Modify(ctx, s.store, name, func(h *v1.Host) error {
		h.Spec.Unschedulable = false
		return nil
	}); err != nil {
		return nil, err
	}
	return nil, hasDesktops(name, desktops)
}

func hasDesktops(host string, desktops []string) error {
	return status.Errorf(codes.FailedPrecondition, "host %s has desktops: %s; drain it and delete them first, or, when the machine is off for good and the host is DOWN, say so with --host-is-off",
		host, listed(desktops))
}

// desktopsOn names the desktops whose present life is on the host, or whose data is.
func (s *objectService) desktopsOn(ctx context.Context, host string) ([]string, error) {
	desktops, _, err := store.List[*v1.Desktop](ctx, s.store)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, desktop := range desktops {
		if desktop.GetIncarnation().GetHost() == host || desktop.GetSpec().GetDataHost() == host {
			names = append(names, desktop.GetMeta().GetName())
		}
	}
	return names, nil
}

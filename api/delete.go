package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Delete removes what nobody uses at once; pools and desktops get the mark upon which the orchestrator takes them down.
func (s *objectService) Delete(ctx context.Context, request *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	if err := checkDelete(request); err != nil {
		return nil, err
	}
	for attempt := 1; ; attempt++ {
		response, err := s.delete(ctx, request)
		if attempt == attempts || request.GetRevision() != 0 || !errors.Is(err, store.ErrConflict) {
			return response, err
		}
	}
}

// checkDelete refuses what can be seen to be wrong without looking at the object.
func checkDelete(request *v1.DeleteRequest) error {
	kind := request.GetKind()
	if request.GetAttestHostOff() && kind != v1.Kind_KIND_HOST {
		return invalid(mistake{"attestHostOff", "is for hosts only"})
	}
	if request.GetData() != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED && kind != v1.Kind_KIND_POOL && kind != v1.Kind_KIND_DESKTOP {
		return invalid(mistake{"data", "is for pools and desktops only"})
	}
	switch kind {
	case v1.Kind_KIND_CLAIM:
		return status.Error(codes.InvalidArgument, "claims cannot be deleted: use \"daybreak release\"")
	case v1.Kind_KIND_EVENT, v1.Kind_KIND_ROLLOUT, v1.Kind_KIND_PLAN, v1.Kind_KIND_HISTORY:
		return status.Errorf(codes.InvalidArgument, "%ss cannot be deleted by hand", store.KindName(kind))
	}
	return nil
}

func (s *objectService) delete(ctx context.Context, request *v1.DeleteRequest) (*v1.DeleteResponse, error) {
	o, err := s.store.Get(ctx, store.Ref{Kind: request.GetKind(), Name: request.GetName()})
	if err != nil {
		return nil, err
	}
	if wants, have := request.GetRevision(), o.GetMeta().GetRevision(); wants != 0 && wants != have {
		return nil, status.Errorf(codes.Aborted, "%s changed meanwhile: it is at revision %d, not %d", store.RefOf(o), have, wants)
	}
	switch o := o.(type) {
	case *v1.Zone, *v1.Image, *v1.Calendar:
		return s.deleteUnused(ctx, o)
	case *v1.Host:
		return s.deleteHost(ctx, o, request.GetAttestHostOff())
	case *v1.Pool:
		return s.markPool(ctx, o, request.GetData())
	case *v1.Desktop:
		return s.markDesktop(ctx, o, request.GetData())
	case *v1.JoinToken:
		return s.remove(ctx, o)
	}
	return nil, status.Errorf(codes.InvalidArgument, "%ss cannot be deleted", store.KindName(request.GetKind()))
}

func (s *objectService) remove(ctx context.Context, o store.Object) (*v1.DeleteResponse, error) {
	if _, err := s.store.Commit(ctx, store.Delete(o)); err != nil {
		return nil, err
	}
	return &v1.DeleteResponse{Gone: true}, nil
}

// deleteUnused removes an object that no pool, desktop or calendar refers to. A pool or calendar that takes it up in between
// raises its revision (see checkPoolRefs, checkCalendar), and this removal fails and is decided anew.
func (s *objectService) deleteUnused(ctx context.Context, o store.Object) (*v1.DeleteResponse, error) {
	users, err := s.usersOf(ctx, o)
	if err != nil {
		return nil, err
	}
	if len(users) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is in use by %s", store.RefOf(o), listed(users))
	}
	return s.remove(ctx, o)
}

func (s *objectService) usersOf(ctx context.Context, o store.Object) ([]string, error) {
	pools, _, err := store.List[*v1.Pool](ctx, s.store)
	if err != nil {
		return nil, err
	}
	ref := store.RefOf(o)
	var users []string
	for _, pool := range pools {
		spec := pool.GetSpec()
		used := map[v1.Kind]string{v1.Kind_KIND_ZONE: spec.GetZone(), v1.Kind_KIND_IMAGE: spec.GetImage(), v1.Kind_KIND_CALENDAR: spec.GetCalendar()}
		if used[ref.Kind] == ref.Name {
			users = append(users, store.RefOf(pool).String())
		}
	}
	desktops, _, err := store.List[*v1.Desktop](ctx, s.store)
	if err != nil {
		return nil, err
	}
	for _, desktop := range desktops {
		used := map[v1.Kind]string{v1.Kind_KIND_ZONE: desktop.GetSpec().GetZone(), v1.Kind_KIND_IMAGE: desktop.GetIncarnation().GetImage()}
		if used[ref.Kind] == ref.Name {
			users = append(users, store.RefOf(desktop).String())
		}
	}
	if ref.Kind == v1.Kind_KIND_CALENDAR {
		heirs, err := s.heirsOf(ctx, ref.Name)
		if err != nil {
			return nil, err
		}
		users = append(users, heirs...)
	}
	return users, nil
}

// markPool asks for a pool's end. Users are not thrown out: that takes a release first.
func (s *objectService) markPool(ctx context.Context, pool *v1.Pool, data v1.DataDisposal) (*v1.DeleteResponse, error) {
	desktops, _, err := store.List[*v1.Desktop](ctx, s.store)
	if err != nil {
		return nil, err
	}
	holdsData := pool.GetSpec().GetShape().GetDataDiskGib() > 0
	var claimed []string
	for _, desktop := range desktops {
		if desktop.GetSpec().GetPool() != pool.GetMeta().GetName() {
			continue
		}
		holdsData = holdsData || mayHoldData(desktop)
		if desktop.GetClaim() != nil {
			claimed = append(claimed, desktop.GetMeta().GetName()+" ("+desktop.GetClaim().GetUser()+")")
		}
	}
	if len(claimed) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "%s has desktops that users hold: %s; release them first", store.RefOf(pool), listed(claimed))
	}
	return s.mark(ctx, pool, data, holdsData)
}

func (s *objectService) markDesktop(ctx context.Context, desktop *v1.Desktop, data v1.DataDisposal) (*v1.DeleteResponse, error) {
	if claim := desktop.GetClaim(); claim != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "%s is held by %s: release it first (\"daybreak release %s --user %s\")",
			store.RefOf(desktop), claim.GetUser(), desktop.GetSpec().GetPool(), claim.GetUser())
	}
	return s.mark(ctx, desktop, data, mayHoldData(desktop))
}

// mayHoldData: a data disk was made, or may have been made and not yet reported.
func mayHoldData(desktop *v1.Desktop) bool {
	return desktop.GetSpec().GetDataHost() != "" || desktop.GetStatus().GetDataDisk() || desktop.GetIncarnation().GetShape().GetDataDiskGib() > 0
}

// mark writes the wish that the object goes. Asked twice, the first word counts.
func (s *objectService) mark(ctx context.Context, o store.Object, data v1.DataDisposal, holdsData bool) (*v1.DeleteResponse, error) {
	if o.GetMeta().GetDeletion() != nil {
		return &v1.DeleteResponse{}, nil
	}
	if holdsData && data == v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED {
		return nil, status.Errorf(codes.FailedPrecondition, "%s has data disks: say what becomes of them, --data keep or --data delete", store.RefOf(o))
	}
	marked := proto.CloneOf(o)
	marked.GetMeta().Deletion = &v1.Deletion{
		Requested: timestamppb.New(time.Now()), By: callerOf(ctx).String(), Data: data,
	}
	if _, err := s.store.Commit(ctx, store.Update(marked)); err != nil {
		return nil, err
	}
	return &v1.DeleteResponse{}, nil
}

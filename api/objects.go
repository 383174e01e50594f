package api

import (
	"context"
	"sort"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

const defaultPage = 500

// objectService reads and edits the stored objects. Reads go to the store itself, so that everybody sees what they wrote,
// whichever daybreakd they ask.
type objectService struct {
	v1.UnimplementedObjectServiceServer
	store   *store.Store
	closing <-chan struct{}
}

// Get returns one object.
func (s *objectService) Get(ctx context.Context, request *v1.GetRequest) (*v1.GetResponse, error) {
	o, err := s.store.Get(ctx, store.Ref{Kind: request.GetKind(), Name: request.GetName()})
	if err != nil {
		return nil, err
	}
	return &v1.GetResponse{Object: wrap(o)}, nil
}

// List returns a page of a kind's objects. Pages are cut by names, so an object that stays is on exactly one of them.
func (s *objectService) List(ctx context.Context, request *v1.ListRequest) (*v1.ListResponse, error) {
	if err := checkAbout(request); err != nil {
		return nil, err
	}
	all, _, err := s.store.List(ctx, request.GetKind())
	if err != nil {
		return nil, err
	}
	first := sort.Search(len(all), func(i int) bool { return all[i].GetMeta().GetName() > request.GetPageToken() })
	limit := int(request.GetPageSize())
	if limit == 0 {
		limit = defaultPage
	}
	response, size, last := &v1.ListResponse{}, 0, ""
	for _, o := range all[first:] {
		if !matches(o, request) {
			continue
		}
		wrapped := wrap(o)
		size += proto.Size(wrapped)
		if full := len(response.Objects) == limit || size > answerBytes; full && len(response.Objects) > 0 {
			response.NextPageToken = last
			break
		}
		response.Objects = append(response.Objects, wrapped)
		last = o.GetMeta().GetName()
	}
	return response, nil
}

func checkAbout(request *v1.ListRequest) error {
	if request.GetAbout() == "" {
		return nil
	}
	switch request.GetKind() {
	case v1.Kind_KIND_DESKTOP, v1.Kind_KIND_CLAIM, v1.Kind_KIND_ROLLOUT, v1.Kind_KIND_EVENT:
		return nil
	}
	return status.Errorf(codes.InvalidArgument, "about: %ss are not about another object; only desktops, claims, rollouts (of a pool) and events are",
		store.KindName(request.GetKind()))
}

func matches(o store.Object, request *v1.ListRequest) bool {
	for key, want := range request.GetLabels() {
		if have, ok := o.GetMeta().GetLabels()[key]; !ok || have != want {
			return false
		}
	}
	return request.GetAbout() == "" || subjectOf(o) == request.GetAbout()
}

// subjectOf is the name of the object that o belongs to or speaks of.
func subjectOf(o store.Object) string {
	switch o := o.(type) {
	case *v1.Desktop:
		return o.GetSpec().GetPool()
	case *v1.Claim:
		return o.GetPool()
	case *v1.Rollout:
		return o.GetSpec().GetPool()
	case *v1.Event:
		return o.GetSubject()
	}
	return ""
}

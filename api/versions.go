package api

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"daybreak/images"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// versions is the part of ImageService that is about versions which are there already.
type versions struct {
	v1.UnimplementedImageServiceServer
	objects   *store.Store
	mirror    *store.Mirror
	intake    *catalog.Intake
	comparer  *catalog.Comparer
	collector *catalog.Collector
	// collecting has a token while garbage is collected: twice at a time would be of no use.
	collecting chan struct{}
}

func newVersions(config Config, intake *catalog.Intake, objects *store.Store) (*versions, error) {
	codec, err := images.NewCodec()
	if err != nil {
		return nil, err
	}
	return &versions{
		objects: objects, mirror: config.Mirror, intake: intake, comparer: catalog.NewComparer(objects, config.Chunks, codec),
		collector: catalog.NewCollector(config.Chunks, config.Cluster.ID, config.Log), collecting: make(chan struct{}, 1),
	}, nil
}

// Retire ends the use of a version, or withdraws it.
func (s *versions) Retire(ctx context.Context, request *v1.RetireRequest) (*v1.RetireResponse, error) {
	version, err := s.intake.Retire(ctx, time.Now(), request.GetImage(), request.GetVersion(), request.GetWithdraw(), request.GetReason())
	if err != nil {
		return nil, err
	}
	return &v1.RetireResponse{Version: version}, nil
}

// Usage says who uses the versions of an image, and where they lie.
func (s *versions) Usage(ctx context.Context, request *v1.UsageRequest) (*v1.UsageResponse, error) {
	image, err := store.Get[*v1.Image](ctx, s.objects, request.GetImage())
	if err != nil {
		return nil, err
	}
	view, err := s.mirror.Wait(ctx, image.GetMeta().GetRevision())
	if err != nil {
		return nil, err
	}
	return &v1.UsageResponse{Versions: catalog.Usage(image, catalog.UsersIn(view))}, nil
}

// Diff compares two versions of an image.
func (s *versions) Diff(ctx context.Context, request *v1.DiffRequest) (*v1.DiffResponse, error) {
	return s.comparer.Diff(ctx, request.GetImage(), request.GetFrom(), request.GetTo())
}

// CollectGarbage removes content that nothing needs any more.
func (s *versions) CollectGarbage(ctx context.Context, request *v1.CollectGarbageRequest) (*v1.CollectGarbageResponse, error) {
	select {
	case s.collecting <- struct{}{}:
		defer func() { <-s.collecting }()
	default:
		return nil, status.Error(codes.ResourceExhausted, "garbage is being collected already: try again in a moment")
	}
	grace := catalog.DefaultGrace
	if request.GetGrace() != nil {
		grace = request.GetGrace().AsDuration()
	}
	return s.collector.Collect(ctx, s.objects, time.Now(), grace, request.GetDryRun())
}

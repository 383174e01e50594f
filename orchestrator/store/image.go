package store

import (
	v1 "daybreak/proto/daybreak/v1"
)

// Version finds a version of an image (nil has none) by its number; nil when there is none of that number.
func Version(image *v1.Image, number uint32) *v1.ImageVersion {
	for _, v := range image.GetStatus().GetVersions() {
		if v.GetNumber() == number {
			return v
		}
	}
	return nil
}

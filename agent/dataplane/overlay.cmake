twill_library(twill_overlay SOURCES kernel_overlay.cpp overlay_device.cpp LINK twill_nl)

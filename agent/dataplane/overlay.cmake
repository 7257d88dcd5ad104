twill_library(twill_overlay SOURCES overlay_device.cpp LINK twill_nl)

"""A plug-in of netcarve: the family `plain_cnn` and its space `plain_cnn_small`."""

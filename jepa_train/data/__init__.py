"""The datasets: one file per source, one row per dataset in DATASETS."""

from jepa_train.data import cifar, digits, image_folder
from jepa_train.data.base import Dataset, Images, Inventory, LoadedDataset, Splits

DATASETS: dict[str, Dataset] = {
    "digits": digits.DIGITS,
    "digits_0_4": digits.DIGITS_0_4,
    "digits_5_9": digits.DIGITS_5_9,
    "cifar10": cifar.CIFAR10,
    "cifar100": cifar.CIFAR100,
    "image_folder": image_folder.IMAGE_FOLDER,
    "unlabelled_folder": image_folder.UNLABELLED_FOLDER,
}


__all__ = ["DATASETS", "Dataset", "Images", "Inventory", "LoadedDataset", "Splits"]

"""The words that the demo's product titles are made of: brands that sound real, real kinds of products."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """A category of products: what it is called, and the words of its titles.

    `kinds` maps a kind's name to its noun in a title; their order is a ring: whoever bought one kind tends to buy the
    next one after it (a bicycle helmet after a bicycle light, the first kind after the last).
    """

    path: str
    kinds: dict[str, str]
    brands: tuple[str, ...]
    qualifiers: tuple[str, ...]
    attributes: tuple[str, ...]


FIELDS = (
    Field(
        "Kitchen > Coffee",
        {
            "Grinders": "Coffee Grinder",
            "Beans": "Whole Bean Coffee",
            "Brewers": "Coffee Dripper",
            "Filters": "Coffee Filters",
            "Cups": "Coffee Mug",
        },
        ("Brewhaus", "Morrow & Finch", "Kaffeto", "Oldport Roasters"),
        ("Espresso", "Pour-Over", "Barista", "Dark Roast", "French Press", "Single-Origin"),
        ("Gift Box", "for Two Cups", "Medium Roast Series", "Slow Brew Edition", "Cafe Quality", "Travel Set"),
    ),
    Field(
        "Outdoors > Hiking & Camping",
        {
            "Backpacks": "Hiking Backpack",
            "Tents": "Camping Tent",
            "Sleeping Bags": "Sleeping Bag",
            "Stoves": "Camping Stove",
            "Headlamps": "Camping Headlamp",
        },
        ("Ridgeline", "Northpine", "Tarnfell", "Vagabond Peak"),
        ("Ultralight", "Backcountry", "Four-Season", "Trail", "Expedition", "Alpine"),
        ("Weatherproof", "for Mountain Trips", "Two-Person", "Forest Green", "Compact Pack Size", "Windproof"),
    ),
    Field(
        "Sports > Running",
        {
            "Shoes": "Running Shoes",
            "Socks": "Running Socks",
            "Shorts": "Running Shorts",
            "Watches": "GPS Running Watch",
            "Bottles": "Runner's Water Bottle",
        },
        ("Stridewell", "Fleetfoot", "Pacer Lab", "Milepost"),
        ("Marathon", "Tempo", "Road Race", "Sprint", "Cushioned", "Breathable"),
        ("for Long Distance", "Reflective", "Men's", "Women's", "Moisture-Wicking", "Race Day Edition"),
    ),
    Field(
        "Sports > Cycling",
        {
            "Lights": "Bicycle Light",
            "Helmets": "Bike Helmet",
            "Tires": "Bike Tire",
            "Pumps": "Bicycle Floor Pump",
            "Locks": "Bicycle U-Lock",
        },
        ("Velocraft", "Spoke & Chain", "Rotor Nine", "Pedalworks"),
        ("Commuter", "Mountain", "Gravel", "Aero", "City", "Touring"),
        ("for Road Bikes", "Rechargeable", "Anti-Puncture", "Cyclist's Choice", "26 Inch", "Handlebar Mount"),
    ),
    Field(
        "Beauty > Hair Care",
        {
            "Shampoos": "Shampoo",
            "Conditioners": "Hair Conditioner",
            "Masks": "Hair Mask",
            "Oils": "Hair Oil",
            "Dryers": "Hair Dryer",
        },
        ("Lumenelle", "Silkroot", "Tressa", "Botanica Verde"),
        ("Argan", "Keratin", "Volumizing", "Anti-Frizz", "Color Protect", "Curl Defining"),
        ("for Dry Hair", "Sulfate-Free", "for Curly Hair", "Salon Size", "Repairing", "for Fine Hair"),
    ),
    Field(
        "Beauty > Skin Care",
        {
            "Cleansers": "Face Cleanser",
            "Toners": "Facial Toner",
            "Serums": "Face Serum",
            "Creams": "Face Moisturizer",
            "Sunscreens": "Facial Sunscreen SPF 50",
        },
        ("Dermalune", "Purewell", "Aquaflora", "Halden Skin"),
        ("Hydrating", "Vitamin C", "Hyaluronic Acid", "Retinol", "Sensitive Skin", "Niacinamide"),
        ("Fragrance-Free", "for Oily Skin", "Anti-Aging", "Overnight", "for Acne-Prone Skin", "Glow Boost"),
    ),
    Field(
        "Beauty > Makeup",
        {
            "Primers": "Makeup Primer",
            "Foundations": "Liquid Foundation",
            "Eyeshadows": "Eyeshadow Palette",
            "Mascaras": "Mascara",
            "Lipsticks": "Lipstick",
        },
        ("Rouge Parade", "Velvetine", "Chroma Belle", "Nightbloom"),
        ("Matte", "Shimmer", "Long-Wear", "Smoky", "Satin", "Waterproof Makeup"),
        ("Nude Shades", "Rose Gold", "Blackest Black", "Cruelty-Free Cosmetics", "Travel Cosmetics", "Berry Tones"),
    ),
    Field(
        "Toys > Board Games",
        {
            "Strategy": "Strategy Board Game",
            "Cooperative": "Cooperative Board Game",
            "Cards": "Card Game",
            "Dice": "Dice Game",
            "Puzzles": "1000 Piece Jigsaw Puzzle",
        },
        ("Meeple Guild", "Tabletop Tavern", "Foxglove Games", "Dragonmark"),
        ("Castle", "Pirate", "Space Colony", "Medieval Trade", "Haunted Mansion", "Dungeon"),
        ("for 2-4 Players", "Family Edition", "Expansion Included", "Party Night", "Ages 10 and Up", "Collector's Box"),
    ),
    Field(
        "Toys > Building & Pretend Play",
        {
            "Blocks": "Wooden Building Blocks",
            "Trains": "Toy Train Set",
            "Figures": "Toy Action Figures",
            "Vehicles": "Toy Fire Truck",
            "Playsets": "Toy Playset",
        },
        ("Tinkertot", "Brickaroo", "Little Acorn", "Jolly Workshop"),
        ("Toddler", "Dinosaur", "Farm Animal", "Construction", "Rescue Heroes", "Magnetic"),
        ("for Kids Ages 3-6", "Preschool", "60 Pieces", "Bright Colors", "with Lights and Sounds", "Birthday Gift Box"),
    ),
    Field(
        "Home > Gardening",
        {
            "Seeds": "Garden Seeds",
            "Pots": "Plant Pot",
            "Soils": "Potting Soil",
            "Pruners": "Pruning Shears",
            "Hoses": "Garden Hose",
        },
        ("Greenthumb & Co", "Loam & Leaf", "Terra Hollow", "Bramblewood"),
        ("Organic", "Heirloom", "Vegetable", "Rose", "Balcony", "Greenhouse"),
        ("for Raised Beds", "Gardener's Pack", "All Season", "Terracotta", "Slow Release", "for Herbs"),
    ),
    Field(
        "Electronics > Photography",
        {
            "Cameras": "Mirrorless Camera",
            "Lenses": "Camera Lens",
            "Tripods": "Camera Tripod",
            "Memory": "Camera Memory Card",
            "Bags": "Camera Bag",
        },
        ("Optika", "Halide", "Shutterline", "Prismora"),
        ("Portrait", "Landscape", "Wide-Angle", "Telephoto", "Full-Frame", "Macro"),
        ("for Photographers", "4K Video", "Carbon Fiber", "with Lens Hood", "Photo Kit", "High Speed"),
    ),
    Field(
        "Pets > Dogs",
        {
            "Food": "Dry Dog Food",
            "Treats": "Dog Treats",
            "Toys": "Dog Chew Toy",
            "Leashes": "Dog Leash",
            "Beds": "Dog Bed",
        },
        ("Barkley", "Waggington", "Houndstooth Farm", "Good Paw"),
        ("Puppy", "Grain-Free", "Large Breed", "Salmon", "Senior Dog", "Tough Chewer"),
        ("Vet Recommended", "for Small Breeds", "Washable", "Natural", "Training", "Value Pack"),
    ),
)
